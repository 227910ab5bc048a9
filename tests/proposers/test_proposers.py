"""Proposers without a language model: search spaces, and no repetitions."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import (
    Context,
    PastAttempt,
    ProposalInvalid,
    ProposerExhausted,
)
from pytest_autoresearch.proposers.registry import create
from pytest_autoresearch.source.brief import FrontMatterError, declared_space
from pytest_autoresearch.source.edits import apply
from pytest_autoresearch.source.search_space import find, substitute

SOURCE = '''\
CUDA = False
LR = 0.02  # the rate
DEPTH = 8 if CUDA else 2
WARM_RATIO = 0.4
BATCH = 2**10
BETA = 0.95
FLAG = True
WINDOW = "SSSL"
PEAK_FLOPS = 1e15
SEED = 42
NAME = "not a pattern"


def forward(x):
    """A docstring with 0.25 in it."""
    return x.fill(0.1) * x[0] + 1.0
'''


def past_attempt(
    number: int,
    source: str,
    score: float | None,
    meta: dict,
    parent: int | None,
    verdict: str = "discard",
    gain: float | None = None,
) -> PastAttempt:
    return PastAttempt(
        number, f"mutation-{number}", parent, "", "", "", verdict, "", score, gain, None, 0, 0, meta,
        lambda: {"train.py": source},
    )  # fmt: skip


def context(
    attempt: int, history: list[PastAttempt], source: str = SOURCE, program: str = ""
) -> Context:
    base = past_attempt(0, source, 1.0, {}, None)
    return Context(
        Experiment(),
        program,
        attempt,
        0,
        base,
        {"train.py": source},
        {},
        [base, *history],
        base,
        None,
    )


def values(source: str) -> dict[str, object]:
    scope: dict[str, object] = {}
    exec(source, scope)
    return scope


def test_literals_of_a_program_are_found_as_hyperparameters() -> None:
    parameters = {one.name: one for one in find(SOURCE)}
    assert list(parameters) == [
        "LR", "DEPTH", "WARM_RATIO", "BATCH", "BETA", "FLAG", "WINDOW", "forward#2",
    ]  # fmt: skip
    assert (parameters["LR"].low, parameters["LR"].high, parameters["LR"].log) == (0.005, 0.08, True)
    assert parameters["DEPTH"].value == 2
    assert parameters["BATCH"].choices == (256, 512, 1024, 2048)
    assert (parameters["WARM_RATIO"].low, parameters["WARM_RATIO"].high) == (0.0, 1.0)
    assert parameters["BETA"].high < 1
    assert parameters["FLAG"].choices == (False, True)
    assert {"L", "SL"} <= set(parameters["WINDOW"].choices)
    assert {one.name: one.value for one in find(SOURCE, cuda=True)}["DEPTH"] == 8


@given(st.floats(0.005, 0.08), st.integers(1, 4), st.sampled_from(["L", "SL"]))
def test_substitution_changes_the_chosen_literals_only(lr: float, depth: int, window: str) -> None:
    parameters = {one.name: one for one in find(SOURCE)}
    changed = substitute(SOURCE, parameters, {"LR": lr, "DEPTH": depth, "WINDOW": window})
    scope = values(changed)
    assert (scope["LR"], scope["DEPTH"], scope["WINDOW"]) == (lr, depth, window)
    assert "# the rate" in changed
    assert "8 if CUDA else" in changed
    assert len(changed.splitlines()) == len(SOURCE.splitlines())


def test_front_matter_overrides_the_ranges() -> None:
    program = "---\nsearch_space:\n  LR: {low: 0.1, high: 0.2}\n  DEPTH: [1, 9]\n  BETA: fixed\n---\n# x\n"
    parameters = {one.name: one for one in find(SOURCE, declared_space(program))}
    assert (parameters["LR"].low, parameters["LR"].high) == (0.1, 0.2)
    assert parameters["DEPTH"].choices == (1, 9)
    assert "BETA" not in parameters


@pytest.mark.parametrize(
    "bad",
    [
        "---\nsearch_space: [1\n---\n", "---\nsearch_space: 3\n---\n", "---\nsearch_space:\n",
        "---\nsearch_space:\n  LR: {low: 2, high: 1}\n---\n", "---\nsearch_space:\n  LR: 3\n---\n",
        "---\nsearch_space:\n  LR: {low: few, high: many}\n---\n",
        "---\nsearch_space:\n  LR: {low: 0, high: 1, log: true}\n---\n",
    ],
)  # fmt: skip
def test_bad_front_matter_is_one_line(bad: str) -> None:
    with pytest.raises(FrontMatterError, match=r"^program\.md"):
        declared_space(bad)


@pytest.mark.parametrize("name", ["gp", "ratchet", "random"])
def test_proposals_apply_parse_and_never_repeat(name: str) -> None:
    proposer = create(name, experiment=Experiment(), root=Path())
    history: list[PastAttempt] = []
    seen = set()
    try:
        for attempt in range(1, 9):
            proposal = proposer.propose(context(attempt, history))
            text = apply({"train.py": SOURCE}, proposal.edits)["train.py"]
            ast.parse(text)
            assert text not in seen
            assert "->" in proposal.title
            seen.add(text)
            history.append(past_attempt(attempt, text, None, dict(proposal.meta), 0))
    finally:
        proposer.close()


def test_the_same_attempt_gets_the_same_proposal() -> None:
    one, two = (create("ratchet", experiment=Experiment(), root=Path()) for _ in range(2))
    assert one.propose(context(3, [])) == two.propose(context(3, []))


def test_program_without_literals_ends_the_search() -> None:
    with pytest.raises(ProposerExhausted, match="no literal"):
        create("ratchet", experiment=Experiment(), root=Path()).propose(context(1, [], "x = f()\n"))


def test_recorded_proposals_come_in_order_each_once(tmp_path: Path) -> None:
    for name in ("b.txt", "a.txt"):
        (tmp_path / name).write_text(
            f"Title: {name}\nFamily: schedule\n\ntrain.py\n<<<<<<< SEARCH\nSEED = 42\n=======\nSEED = 1\n>>>>>>> REPLACE\n"
        )
    (tmp_path / "c.txt").write_text("nothing in it")
    proposer = create(f"replay:{tmp_path}", experiment=Experiment(), root=Path())
    first = proposer.propose(context(1, []))
    assert first.title == "a.txt"
    assert first.meta == {"replay": "a.txt", "family": "schedule"}
    used = [past_attempt(1, SOURCE, None, dict(first.meta), 0)]
    assert proposer.propose(context(2, used)).title == "b.txt"
    with pytest.raises(ProposalInvalid, match=r"c\.txt: there is no SEARCH"):
        proposer.propose(context(3, used))
    everything = [past_attempt(i, SOURCE, None, {"replay": f"{n}.txt"}, 0) for i, n in enumerate("abc")]
    with pytest.raises(ProposerExhausted, match="all 3 recorded"):
        proposer.propose(context(4, everything))


def test_users_proposer_is_loaded_by_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "my_ideas.py").write_text(
        "from pytest_autoresearch.proposers.search.literals import LiteralSearch, ratchet\n"
        "def make(experiment):\n    return LiteralSearch('mine', ratchet)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    proposer = create("my_ideas:make", experiment=Experiment(), root=tmp_path)
    assert proposer.propose(context(1, [])).proposer == "mine"
