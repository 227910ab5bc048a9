"""Which parent, which old idea, and when to stop."""

from __future__ import annotations

import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project, git

from pytest_autoresearch.core.experiment import Metric
from pytest_autoresearch.core.proposal import Edit
from pytest_autoresearch.core.records import Champion, SlotRecord
from pytest_autoresearch.judge.parents import (
    BEST,
    FORMER,
    MERGED,
    PATIENCE,
    STACKED,
    STRUCTURAL,
    course,
    near_misses,
    since_keep,
    stack,
    stop,
)

BASE = Champion(1, 1, "c1", {1: 1.0}, 0.0)
BETTER = Champion(2, 5, "c5", {1: 0.9}, 0.0)


def slot(
    number: int, verdict: str | None, sigma: float = -1.0, champion: int = 1, **more: object
) -> SlotRecord:
    state = "done" if verdict else "running"
    values = {
        "kind": "mutation", "gain_sigma": sigma, "commit": f"c{number}", "parent": champion,
        "champion_before": champion, "edits": (Edit("train.py", f"s{number}", "r"),),
        "title": f"idea {number}",
    } | more  # fmt: skip
    return SlotRecord(number, f"m-{number}", number=number, session_id=1, worker="w", state=state,
                      started=0.0, verdict=verdict, **values)  # fmt: skip


def test_near_misses_are_better_but_not_surely_so_best_first() -> None:
    slots = [
        slot(2, "discard", 1.7),
        slot(3, "discard", 2.1),
        slot(4, "discard", 0.4),
        slot(5, "keep", 3),
    ]
    assert [s.id for s in near_misses(slots)] == [3, 2]
    assert [s.id for s in near_misses(slots, 0.0)] == [3, 2, 4]
    assert near_misses([slot(6, "discard", 2.0, kind="prune")]) == []


@given(st.integers(0, 5), st.integers(1, 400))
def test_greedy_always_starts_from_the_champion(seed: int, number: int) -> None:
    slots = [slot(n, "discard", 1.6) for n in range(2, 30)]
    assert course("greedy", slots, [BASE], number, seed).parent == 1
    assert course("greedy", slots, [BASE], number, seed).proposal is None


def shares(slots: list[SlotRecord], champions: list[Champion]) -> dict[int, float]:
    """How often each slot is the parent, where no old idea comes first."""
    chosen = [course("archive", slots, champions, n, 3) for n in range(1, 2001, 2)]
    assert chosen == [course("archive", slots, champions, n, 3) for n in range(1, 2001, 2)]
    return {p: sum(c.parent == p for c in chosen) / len(chosen) for p in {c.parent for c in chosen}}


def test_without_a_better_discard_every_slot_starts_from_the_champion() -> None:
    slots = [slot(2, "discard", 0.0), slot(3, "crash"), slot(4, None), slot(5, "keep", 4.0)]
    assert shares(slots[:3], [BASE]) == {1: 1.0}
    assert shares([*slots, slot(6, "discard", -0.1, champion=5)], [BASE, BETTER]) == {5: 1.0}


def test_most_slots_build_on_one_of_the_best_discards_of_this_champion() -> None:
    old = [slot(2, "discard", 2.0), slot(5, "keep", 4.0)]
    new = [slot(n, "discard", n / 10, champion=5) for n in range(6, 12)]
    found = shares([*old, *new], [BASE, BETTER])
    assert set(found) == {5, *range(12 - BEST, 12)}
    assert found[5] == pytest.approx(1 - STACKED, abs=0.05)
    for number in range(12 - BEST, 12):
        assert found[number] == pytest.approx(STACKED / BEST, abs=0.05)


def test_only_in_a_drought_a_slot_may_start_from_a_former_champion() -> None:
    slots = [
        slot(5, "keep", 4.0),
        *(slot(n, "discard", champion=5) for n in range(6, 6 + PATIENCE)),
    ]
    assert shares(slots[:-1], [BASE, BETTER]) == {5: 1.0}
    found = shares(slots, [BASE, BETTER])
    assert set(found) == {5, 1}
    assert found[1] == pytest.approx(FORMER, abs=0.025)


def test_a_mutation_consists_of_the_discards_it_was_built_on_and_itself() -> None:
    slots = [
        slot(2, "discard", 1.0),
        slot(3, "discard", 1.5, parent=2),
        slot(4, "discard", parent=3),
    ]
    by_id = {one.id: one for one in slots}
    assert [one.id for one in stack(slots[2], by_id, {1})] == [2, 3, 4]
    assert [one.id for one in stack(slots[2], by_id, {1, 2})] == [3, 4]
    assert [one.id for one in stack(slots[2], {}, {1})] == [4]


def test_a_near_miss_is_retested_once_when_the_champion_moved() -> None:
    slots = [slot(2, "discard", 1.1), slot(5, "keep", 3.0)]
    again = course("archive", slots, [BASE, BETTER], 6, 0)
    assert again.proposal is not None
    assert again.proposal.edits == slots[0].edits
    assert again.proposal.meta == {"retest": 2}
    assert again.parent == 5
    assert course("archive", slots[:1], [BASE], 6, 0).proposal is None
    slots.append(slot(6, "discard", 0.9, champion=5, meta={"retest": 2}))
    assert course("archive", slots, [BASE, BETTER], 8, 0).proposal is None


def test_a_retest_takes_along_what_it_was_built_on_but_not_what_was_kept() -> None:
    slots = [
        slot(2, "discard", 0.5),
        slot(3, "discard", 1.2, parent=2),
        slot(4, "discard", 0.7),
        slot(5, "keep", 3.0, parent=4),
        slot(6, "discard", 1.4, parent=4),
    ]
    tried = []
    while (again := course("archive", slots, [BASE, BETTER], 100, 0).proposal) is not None:
        tried.append([edit.search for edit in again.edits])
        slots.append(slot(len(slots) + 10, "discard", -1.0, champion=5, meta=again.meta))
    assert tried == [["s6"], ["s2", "s3"]]


def test_what_was_kept_as_a_merge_or_a_retest_is_not_tried_again() -> None:
    slots = [
        slot(2, "discard", 1.2),
        slot(3, "discard", 1.3),
        slot(4, "discard", 1.4),
        slot(5, "keep", 3.0, meta={"merged": [2, 3]}),
    ]
    again = course("archive", slots, [BASE, BETTER], 100, 0).proposal
    assert again is not None
    assert again.meta == {"retest": 4}
    slots.append(slot(6, "keep", 3.0, champion=5, meta=again.meta))
    champions = [BASE, BETTER, Champion(3, 6, "c6", {1: 0.8}, 0.0)]
    assert course("archive", slots, champions, 100, 0).proposal is None


def test_what_no_longer_applies_is_passed_over() -> None:
    slots = [slot(2, "discard", 1.2), slot(3, "discard", 1.1), slot(5, "keep", 3.0)]
    first = slots[0].edits
    again = course("archive", slots, [BASE, BETTER], 6, 0, lambda edits: tuple(edits) != first)
    assert again.proposal is not None
    assert again.proposal.meta == {"retest": 3}
    assert course("archive", slots, [BASE, BETTER], 6, 0, lambda edits: False).proposal is None


def dry(*sigmas: float) -> list[SlotRecord]:
    """A drought: discards with these gains, and others that lost."""
    gains = [*sigmas, *[-1.0] * (PATIENCE - len(sigmas))]
    return [slot(n, "discard", gain) for n, gain in enumerate(gains, 2)]


def test_in_a_drought_near_misses_are_merged_and_structure_is_asked_for() -> None:
    slots = dry(1.6, 1.6)
    assert course("archive", slots[:-1], [BASE], 101, 0).proposal is None
    assert course("archive", slots[:-1], [BASE], 101, 0).hint == ""
    merged = course("archive", slots, [BASE], 101, 0)
    assert merged.proposal is not None
    assert merged.proposal.edits == (*slots[0].edits, *slots[1].edits)
    assert merged.parent == BASE.slot_id
    slots.append(slot(40, "discard", -1.0, meta=merged.proposal.meta))
    after = course("archive", slots, [BASE], 101, 0)
    assert (after.proposal, after.hint) == (None, STRUCTURAL)


def test_merges_come_once_for_each_stretch_of_patience_and_end() -> None:
    slots, seen = dry(*(1.6 + 1.0 / n for n in range(2, 10))), []
    for number in range(101, 101 + 20 * PATIENCE):
        chosen = course("archive", slots, [BASE], number, 0)
        if chosen.proposal is not None:
            seen.append(tuple(chosen.proposal.meta["merged"]))
        else:
            assert chosen.hint == STRUCTURAL
        meta = chosen.proposal.meta if chosen.proposal else {}
        slots.append(slot(number, "discard", -1.0, meta=meta))
        assert len(seen) <= since_keep(slots) // PATIENCE
    assert seen == list(itertools.combinations(range(2, 2 + MERGED), 2))


def test_a_near_miss_is_not_merged_with_what_it_was_built_on() -> None:
    slots = [slot(2, "discard", 1.5), slot(3, "discard", 1.7, parent=2), slot(4, "discard", 1.2)]
    slots += [slot(n, "discard") for n in range(5, 5 + PATIENCE)]
    merged = course("archive", slots, [BASE], 101, 0).proposal
    assert merged is not None
    assert merged.meta == {"merged": [3, 4]}
    assert [edit.search for edit in merged.edits] == ["s2", "s3", "s4"]


def test_two_ideas_are_merged_in_the_order_in_which_they_fit() -> None:
    slots = dry(1.6, 1.6)
    other_way = (*slots[1].edits, *slots[0].edits)
    merged = course("archive", slots, [BASE], 101, 0, lambda edits: tuple(edits) == other_way)
    assert merged.proposal is not None
    assert merged.proposal.edits == other_way
    assert course("archive", slots, [BASE], 101, 0, lambda edits: False).hint == STRUCTURAL


verdicts = st.sampled_from(["keep", "discard", "crash", "invalid", "duplicate", "guard", None])


@given(
    st.lists(st.tuples(verdicts, st.floats(-3, 3)), max_size=40),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_whatever_happened_the_next_step_is_known_and_the_same_again(
    past: list[tuple[str | None, float]], number: int, seed: int
) -> None:
    slots = [slot(n, verdict, sigma) for n, (verdict, sigma) in enumerate(past, 2)]
    champions = [BASE, *(Champion(n, s.id, s.commit, {1: 0.9}, 0.0)
                         for n, s in enumerate((s for s in slots if s.verdict == "keep"), 2))]  # fmt: skip
    chosen = course("archive", slots, champions, number, seed)
    assert chosen == course("archive", slots, champions, number, seed)
    known = {c.slot_id for c in champions} | {s.id for s in near_misses(slots, 0.0)}
    assert chosen.parent in known
    if chosen.proposal is not None:
        assert chosen.parent == champions[-1].slot_id
        assert chosen.proposal.edits


def test_stops_are_named() -> None:
    metric = Metric()
    dull = [slot(n, "discard") for n in range(2, 6)]
    assert stop(dull, [BASE], metric) == ""
    assert stop(dull, [BASE], metric, plateau=4) == "plateau: 4 slots without a keep"
    assert stop(dull, [BASE], metric, plateau=5) == ""
    assert "target reached" in stop(dull, [BASE, BETTER], metric, target=0.95)
    assert stop(dull, [BASE, BETTER], metric, target=0.85) == ""
    assert "target reached" in stop(dull, [BASE], Metric(direction="max"), target=0.95)
    broken = [slot(n, "crash", reason="boom") for n in range(2, 6)]
    assert "4 slots in a row came to nothing; the last: boom" in stop(
        broken, [BASE], metric, failures=4
    )
    assert stop([*broken, slot(9, "discard")], [BASE], metric, failures=4) == ""


def test_a_keep_ends_the_drought() -> None:
    assert (
        since_keep([slot(2, "discard"), slot(3, "keep", 3.0), slot(4, "discard"), slot(5, None)])
        == 1
    )


@pytest.mark.parametrize(
    ("options", "said", "tried"),
    [
        (["--autoresearch-plateau=2"], "stopped: plateau: 2 slots without a keep", 2),
        (["--autoresearch-target=0.99"], "stopped: target reached", 3),
        (["--autoresearch-max-failures=2"], "4 slots", 4),
    ],
)
def test_a_stop_condition_ends_the_night_in_order(
    project: Project, options: list[str], said: str, tried: int
) -> None:
    project.propose(1.5, 1.6, 0.9, 1.7)
    result = project.run("--iterations=4", "--autoresearch-confirm=0", *options)
    assert result.ret == 0
    assert len(project.verdicts()) == tried
    result.stdout.fnmatch_lines([f"*{said}*"])


STACKER = """
from pytest_autoresearch.source.edits import Edit
from pytest_autoresearch.core.proposal import Proposal

class Stacker:
    name = "stacker"
    def __init__(self, *_):
        pass
    def propose(self, context):
        at = f"# slot {context.slot}"
        edit = Edit("train.py", "seed = int", f"SCORE -= 0.00009 {at}\\nseed = int")
        return Proposal(f"a little {at}", (edit,), proposer="stacker")
    def close(self):
        pass
"""


def test_small_gains_are_built_on_until_they_are_surely_one(project: Project) -> None:
    project.write("stacker.py", STACKER)
    project.write(
        "conftest.py",
        (project.path / "conftest.py").read_text()
        + "\nfrom pytest_autoresearch import policy\npolicy.STACKED, policy.BEST = 1.0, 1\n",
    )
    project.commit("one that adds up")
    project.pytester.syspathinsert()
    result = project.run(
        "--iterations=4", "--autoresearch-proposer=stacker:Stacker", "--autoresearch-confirm=0"
    )
    assert result.ret == 0
    ledger = project.ledger()
    slots = [slot for slot in ledger.slots() if slot.kind == "mutation"]
    kept = next(slot for slot in slots if slot.verdict == "keep")
    below = slots[: slots.index(kept)]
    assert below, "two thirds of sigma alone are no keep"
    assert [slot.verdict for slot in below] == ["discard"] * len(below)
    assert [slot.parent for slot in (*below, kept)] == [1, *(slot.id for slot in below)]
    assert kept.gain == pytest.approx(0.00009 * (len(below) + 1))
    # the commit is the whole of it, on the champion, and says what it consists of
    assert (kept.lines_added, kept.lines_removed) == (len(below) + 1, 0)
    base = ledger.champions()[0].commit
    assert git(project.path, "rev-parse", f"{kept.commit}^") == base
    body = git(project.path, "log", "-1", "--format=%b", kept.commit)
    for slot in below:
        assert f"{slot.name}: {slot.title}" in body
    result.stdout.fnmatch_lines([f"*K *{kept.name} {kept.title} on {below[-1].name} +*"])
    done = project.pytester.run(sys.executable, "-m", "pytest_autoresearch", "finalize")
    assert done.ret == 0
    steps = git(project.path, "log", "--format=%s%n%b", f"{base}..research/main")
    assert f"Built on {below[0].name}: {below[0].title}" in steps
    page = (project.path / ".autoresearch/report.html").read_text()
    assert f"Built on {', '.join(slot.name for slot in below)}, which" in page


def test_a_streak_of_failures_ends_the_night(project: Project) -> None:
    project.propose(1.5, "undefined_name", "undefined_other", 0.9)
    result = project.run("--iterations=4", "--autoresearch-max-failures=2")
    assert project.verdicts() == ["discard", "crash", "crash"]
    result.stdout.fnmatch_lines(["*stopped: 2 slots in a row came to nothing*"])


def test_an_experiment_that_scatters_too_much_is_refused_with_the_remedy(project: Project) -> None:
    project.write("train.py", (project.path / "train.py").read_text().replace("* 0.0001", "* 0.1"))
    project.commit("noisy")
    project.propose(0.5)
    result = project.run("--iterations=1")
    assert result.ret == 1
    assert "keep" not in project.verdicts()
    result.stdout.fnmatch_lines(["*too noisy: 3 runs of the same code*--autoresearch-max-noise*"])
    again = project.run("--iterations=1", "--autoresearch-max-noise=0.5")
    assert again.ret == 0
