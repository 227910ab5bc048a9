"""Search without a language model: steps that can be told apart, and effects that add up."""

from __future__ import annotations

import ast
import math
import random
import re
import statistics
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import Context, PastAttempt, Proposal, ProposerExhausted
from pytest_autoresearch.proposers.registry import create
from pytest_autoresearch.proposers.search.literals import grid, near, stepped
from pytest_autoresearch.proposers.search.observations import MAX_POINTS, points
from pytest_autoresearch.source.edits import apply
from pytest_autoresearch.source.search_space import Hyperparameter, find, ranged

SOURCE = """\
DEPTH = 2
LR = 0.02
HEAD_LR = 0.004
BETA = 0.95
WARM_RATIO = 0.4
WINDOW = "SL"


def scale(x):
    return 0.1 * x
"""
SIGMA = 0.01


def past(number: int, source: str, verdict: str, gain: float | None, **more: object) -> PastAttempt:
    return PastAttempt(
        number, f"mutation-{number}", more.pop("parent", 0), "", "", "", verdict, "",
        None if gain is None else 1.0 - gain, gain, None if gain is None else gain / SIGMA, 0, 0,
        more.pop("meta", {}), more.pop("read", lambda: {"train.py": source}),
    )  # fmt: skip


BASELINE = past(0, SOURCE, "baseline", 0.0)


class Campaign:
    """Asks a proposer, and keeps what it tried."""

    def __init__(self, name: str, seed: int = 0, source: str = SOURCE, program: str = "") -> None:
        self.proposer = create(name, experiment=Experiment(), root=Path())
        self.seed, self.program = seed, program
        self.champion = past(0, source, "baseline", 0.0)
        self.history = [self.champion]

    def ask(self) -> Proposal:
        return self.proposer.propose(
            Context(
                Experiment(), self.program, len(self.history), self.seed, self.champion,
                self.champion.read_files(), {}, self.history, self.champion, SIGMA,
            )
        )  # fmt: skip

    def text(self, proposal: Proposal) -> str:
        return apply(self.champion.read_files(), proposal.edits)["train.py"]

    def record(self, proposal: Proposal, gain: float | None, verdict: str = "discard") -> None:
        self.history.append(
            past(
                len(self.history), self.text(proposal), verdict, gain,
                parent=self.champion.attempt_id, meta=dict(proposal.meta),
            )
        )  # fmt: skip
        if verdict == "keep":
            self.champion = self.history[-1]


def hyperparameters() -> st.SearchStrategy[Hyperparameter]:
    """Return hyperparameters of every kind, as they are inferred or declared."""
    sources = st.one_of(
        st.floats(1e-5, 1e3).map(lambda x: f"LR = {x!r}"),
        st.floats(0.0, 0.999).map(lambda x: f"ADAM_BETA1 = {x!r}"),
        st.floats(0.0, 1.0).map(lambda x: f"WARM_RATIO = {x!r}"),
        st.integers(1, 100_000).map(lambda x: f"DEPTH = {x}"),
        st.sampled_from(["FLAG = True", 'WINDOW = "SSSL"', "OFFSET = 0.0"]),
    )
    declared = st.sampled_from(
        [{"low": 1, "high": 9}, {"low": 0.001, "high": 0.5, "log": True}, {"low": 0.0, "high": 0.99},
         [1, 4, 2], [0.1, 0.5], ["a", "b"]]
    )  # fmt: skip
    found = sources.map(lambda source: find(source)).filter(bool).map(lambda found: found[0])
    inside = st.builds(ranged, found, declared).filter(
        lambda one: one.choices or (one.ordered and one.low <= one.value <= one.high)
    )
    return st.one_of(found, inside)


def apart(parameter: Hyperparameter, one: float, two: float) -> bool:
    """Whether two values differ by the smallest step that is worth a training."""
    if parameter.log:
        return max(one, two) / min(one, two) >= (1.3 if parameter.is_int else 1.4)
    if parameter.tail:
        return (1 - min(one, two)) / (1 - max(one, two)) >= 1.5
    return abs(one - two) >= 0.095 * (parameter.high - parameter.low)


@given(hyperparameters())
def test_values_are_legal_in_range_and_a_step_apart(parameter: Hyperparameter) -> None:
    values = grid(parameter)
    assert values[0] == parameter.value or not parameter.ordered
    for value in values:
        assert ast.literal_eval(repr(value)) == value
        assert parameter.choices or type(value) is type(parameter.value) or not parameter.is_int
        if parameter.choices:
            assert value in (*parameter.choices, parameter.value)
        elif value != parameter.value:
            assert parameter.low <= value <= parameter.high
    if parameter.ordered:
        ranks = sorted(values)
        for one, two in pairwise(ranks):
            assert parameter.position(two) - parameter.position(one) > 0.9
            assert parameter.choices or apart(parameter, one, two), (one, two)
    assert len(set(values)) == len(values) <= 80


@given(hyperparameters(), st.floats(-8, 8).filter(lambda by: abs(by) >= 1))
def test_a_step_is_whole_or_none(parameter: Hyperparameter, by: float) -> None:
    if not parameter.ordered:
        return
    new = stepped(parameter, parameter.value, by)
    if new is not None:
        moved = parameter.position(new) - parameter.position(parameter.value)
        assert math.copysign(1, moved) == math.copysign(1, by)
        assert 0.9 < abs(moved) < abs(by) + 1


@settings(max_examples=12, deadline=None)
@given(
    st.sampled_from(["gp", "ratchet", "random"]),
    st.integers(0, 99),
    st.lists(st.none() | st.floats(-0.05, 0.05), min_size=12, max_size=12),
    st.data(),
)
def test_proposals_keep_away_from_everything_tried(
    name: str, seed: int, gains: Sequence[float | None], data: st.DataObject
) -> None:
    campaign = Campaign(name, seed)
    space = {one.name: one for one in find(SOURCE)}
    tried = [{one.name: one.value for one in space.values()}]
    for gain in gains:
        proposal = campaign.ask()
        values = {one.name: one.value for one in find(campaign.text(proposal))}
        assert values.keys() == space.keys()
        assert not any(near(space, values, other) for other in tried)
        here = {one.name: one for one in find(campaign.champion.read_files()["train.py"])}
        for key, one in space.items():
            assert one.choices or (  # the range of a rate moves on with the champion
                min(one.low, here[key].low if one.log else 1e9)
                <= values[key]
                <= max(one.high, here[key].high if one.log else 0.0)
            )
        tried.append(values)
        verdict = (
            "crash"
            if gain is None
            else data.draw(
                st.sampled_from(
                    ["discard", "keep", "running"] if gain > 0 else ["discard", "running"]
                )
            )
        )
        campaign.record(proposal, None if verdict == "running" else gain, verdict)


@pytest.mark.parametrize("name", ["gp", "ratchet"])
def test_a_direction_that_has_lost_is_not_followed_further(name: str) -> None:
    campaign = Campaign(name, 3)
    lost: dict[tuple[str, bool], float] = {}
    for _ in range(14):
        proposal = campaign.ask()
        changes = proposal.meta["changes"]
        if len(changes) == 1:
            [(key, value)] = changes.items()
            if isinstance(value, float):
                start = {one.name: one for one in find(SOURCE)}[key].value
                limit = lost.setdefault((key, value > start), value)
                assert abs(value - start) <= abs(limit - start), (changes, lost)
        campaign.record(proposal, -0.02)


def test_the_first_steps_are_of_choices_and_integers() -> None:
    campaign = Campaign("gp")
    changed = []
    for _ in range(5):
        proposal = campaign.ask()
        changed += proposal.meta["changes"]
        campaign.record(proposal, -0.01)
    assert changed[0] == "DEPTH"
    assert changed.count("DEPTH") == 2
    assert "scale#1" not in changed


def test_gains_too_small_for_the_judge_are_proposed_together() -> None:
    small = {"LR": 0.04, "HEAD_LR": 0.002, "BETA": 0.975}

    def gain(values: dict[str, object]) -> float:
        better = sum(math.isclose(float(values[n]), v, rel_tol=0.02) for n, v in small.items())
        other = sum(values[one.name] != one.value for one in find(SOURCE) if one.name not in small)
        return 0.9 * SIGMA * better - 0.5 * SIGMA * other

    campaign = Campaign("gp")
    program = "---\nsearch_space: {DEPTH: fixed, WINDOW: fixed}\n---\n"
    campaign.program = program
    rng = random.Random(1)
    best = 0.0
    for _ in range(30):
        proposal = campaign.ask()
        true = gain({one.name: one.value for one in find(campaign.text(proposal))})
        best = max(best, true)
        campaign.record(proposal, true + rng.gauss(0, 0.3 * SIGMA))
    assert best > 1.7 * SIGMA
    assert "is expected" in proposal.hypothesis


def test_effects_of_other_edits_are_not_taken_for_those_of_literals() -> None:
    campaign = Campaign("gp")
    other = SOURCE.replace("0.1 * x", "0.1 * x + x").replace("LR = 0.02", "LR = 0.04")
    campaign.history.append(past(1, other, "discard", 0.009))
    campaign.history.append(past(2, SOURCE.replace("DEPTH = 2", "DEPTH = 1"), "discard", 0.009))
    campaign.history += [past(n, "not Python (", "crash", None) for n in (3, 4)]
    changes = campaign.ask().meta["changes"]
    assert changes["DEPTH"] == 1
    assert "LR" not in changes


def test_gp_beats_random_search_on_a_smooth_problem() -> None:
    def loss(text: str) -> float:
        values = {one.name: one.value for one in find(text)}
        far = [math.log(values["LR"] / 0.06), math.log((1 - values["BETA"]) / 0.12)]
        far += [2 * (values["WARM_RATIO"] - 0.8), 0.5 * (values["DEPTH"] - 3)]
        return 0.05 * sum(x * x for x in far)

    def reached(name: str, seed: int) -> float:
        campaign = Campaign(name, seed)
        for _ in range(25):
            proposal = campaign.ask()
            before = loss(campaign.champion.read_files()["train.py"])
            gain = before - loss(campaign.text(proposal))
            campaign.record(proposal, gain, "keep" if gain > 0 else "discard")
        return loss(campaign.champion.read_files()["train.py"])

    model = statistics.median(reached("gp", seed) for seed in range(3))
    chance = statistics.median(reached("random", seed) for seed in range(3))
    assert model < 0.3 * loss(SOURCE)
    assert model < chance


def test_gp_is_fitted_to_the_newest_and_the_best_attempts() -> None:
    reads: list[int] = []

    def read(number: int) -> dict[str, str]:
        reads.append(number)
        return {"train.py": SOURCE.replace("0.02", f"{0.01 + number / 1e5}")}

    campaign = Campaign("gp")
    campaign.history += [
        past(n, "", "discard", 0.005 if n == 7 else -n / 1e5, read=partial(read, n))
        for n in range(1, 3001)
    ]
    fitted = [attempt.attempt_id for attempt, _ in points(campaign.history)]
    half = MAX_POINTS // 2
    assert fitted == [*range(1, half + 1), *range(3001 - half, 3001)]
    assert [a.attempt_id for a, _ in points(campaign.history[: half + 1])] == [*range(1, half + 1)]
    assert campaign.ask().edits
    campaign.record(campaign.ask(), -0.01)
    assert campaign.ask().edits
    assert len(reads) == len(set(reads)) <= MAX_POINTS + 1


@pytest.mark.parametrize("name", ["gp", "ratchet", "random"])
def test_a_search_space_ends(name: str) -> None:
    campaign = Campaign(name, source="LAYERS = 2\nFLAG = True\n")
    texts = set()
    for _ in range(7):
        proposal = campaign.ask()
        texts.add(campaign.text(proposal))
        campaign.record(proposal, -0.01)
    assert len(texts) == 7  # four depths with and without, but for the baseline
    with pytest.raises(ProposerExhausted, match="no setting that was not tried"):
        campaign.ask()


def test_the_value_for_the_device_is_varied() -> None:
    source = "CUDA = True\nDEPTH = 8 if CUDA else 2\n"
    base = past(0, source, "baseline", 0.0)
    for cuda, changed in (
        (True, r"DEPTH = \d+ if CUDA else 2"),
        (False, r"DEPTH = 8 if CUDA else \d"),
    ):
        for name in ("gp", "ratchet"):
            here = Context(
                Experiment(), "", 1, 0, base, base.read_files(), {}, [base], base, SIGMA, cuda=cuda
            )
            proposal = create(name, experiment=Experiment(), root=Path()).propose(here)
            assert re.search(changed, apply(here.files, proposal.edits)["train.py"])
