"""Which parent, which old idea, and when to stop."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Project
from pytest_autoresearch.experiment import Metric
from pytest_autoresearch.mutation import Edit
from pytest_autoresearch.policy import (
    CHAMPION_SHARE,
    MERGED,
    PATIENCE,
    STRUCTURAL,
    course,
    near_misses,
    since_keep,
    stop,
)
from pytest_autoresearch.records import Champion, SlotRecord

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
    slots = [slot(2, "discard", 0.7), slot(3, "discard", 1.1), slot(4, "discard", 0.4), slot(5, "keep", 3)]
    assert [s.id for s in near_misses(slots)] == [3, 2]


@given(st.integers(0, 5), st.integers(1, 400))
def test_greedy_always_starts_from_the_champion(seed: int, number: int) -> None:
    slots = [slot(n, "discard", 0.6) for n in range(2, 30)]
    assert course("greedy", slots, [BASE], number, seed).parent == 1
    assert course("greedy", slots, [BASE], number, seed).proposal is None


def test_most_slots_start_from_the_champion_and_the_same_slot_always_from_the_same() -> None:
    slots = [slot(2, "discard", 0.6, champion=5), slot(5, "keep", 4.0)]
    chosen = [course("archive", slots, [BASE, BETTER], n, 3) for n in range(1, 801)]
    share = sum(c.parent == 5 for c in chosen) / len(chosen)
    assert CHAMPION_SHARE - 0.06 < share < CHAMPION_SHARE + 0.06
    assert {c.parent for c in chosen} == {5, 2, 1}
    assert chosen == [course("archive", slots, [BASE, BETTER], n, 3) for n in range(1, 801)]


def test_a_near_miss_is_retested_once_when_the_champion_moved() -> None:
    slots = [slot(2, "discard", 1.0), slot(5, "keep", 3.0)]
    again = course("archive", slots, [BASE, BETTER], 6, 0)
    assert again.proposal is not None
    assert again.proposal.edits == slots[0].edits
    assert again.proposal.meta == {"retest": 2}
    assert course("archive", slots, [BASE], 6, 0).proposal is None
    slots.append(slot(6, "discard", 0.9, champion=5, meta={"retest": 2}))
    assert course("archive", slots, [BASE, BETTER], 8, 0).proposal is None


def test_what_no_longer_applies_is_passed_over() -> None:
    slots = [slot(2, "discard", 1.0), slot(3, "discard", 0.6), slot(5, "keep", 3.0)]
    first = slots[0].edits
    again = course("archive", slots, [BASE, BETTER], 6, 0, lambda edits: tuple(edits) != first)
    assert again.proposal is not None
    assert again.proposal.meta == {"retest": 3}
    assert course("archive", slots, [BASE, BETTER], 6, 0, lambda edits: False).proposal is None


def test_after_a_drought_near_misses_are_merged_and_then_structure_is_asked_for() -> None:
    slots = [slot(n, "discard", 0.6 if n < 4 else -1.0) for n in range(2, 2 + PATIENCE)]
    merged = course("archive", slots, [BASE], 101, 0)
    assert merged.proposal is not None
    assert merged.proposal.edits == (*slots[0].edits, *slots[1].edits)
    slots.append(slot(40, "discard", -1.0, meta={"merged": [2, 3]}))
    after = course("archive", slots, [BASE], 101, 0)
    assert (after.proposal, after.hint) == (None, STRUCTURAL)
    assert course("archive", slots[:5], [BASE], 101, 0).hint == ""


def test_in_a_drought_merges_take_turns_with_the_proposer_and_end() -> None:
    slots = [slot(n, "discard", 0.6 + 1.0 / n) for n in range(2, 22)]
    seen = []
    for number in range(101, 131):
        chosen = course("archive", slots, [BASE], number, 0)
        assert (chosen.proposal is None) == (chosen.hint == STRUCTURAL)
        assert chosen.parent == BASE.slot_id
        if chosen.proposal is not None:
            seen.append(tuple(chosen.proposal.meta["merged"]))
            slots.append(slot(number, "discard", -1.0, meta=chosen.proposal.meta))
    assert seen == list(itertools.combinations(range(2, 2 + MERGED), 2))


def test_two_ideas_are_merged_in_the_order_in_which_they_fit() -> None:
    slots = [slot(n, "discard", 0.6 if n < 4 else -1.0) for n in range(2, 2 + PATIENCE)]
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
    known = {c.slot_id for c in champions} | {s.id for s in near_misses(slots)}
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
    assert since_keep([slot(2, "discard"), slot(3, "keep", 3.0), slot(4, "discard"), slot(5, None)]) == 1


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


def test_a_streak_of_failures_ends_the_night(project: Project) -> None:
    project.propose(1.5, "undefined_name", "undefined_other", 0.9)
    result = project.run("--iterations=4", "--autoresearch-max-failures=2")
    assert project.verdicts() == ["discard", "crash", "crash"]
    result.stdout.fnmatch_lines(["*stopped: 2 slots in a row came to nothing*"])


def test_an_experiment_that_scatters_too_much_is_refused_with_the_remedy(project: Project) -> None:
    project.write(
        "train.py", (project.path / "train.py").read_text().replace("* 0.0001", "* 0.1")
    )
    project.commit("noisy")
    project.propose(0.5)
    result = project.run("--iterations=1")
    assert result.ret == 1
    assert "keep" not in project.verdicts()
    result.stdout.fnmatch_lines(["*too noisy: 3 runs of the same code*--autoresearch-max-noise*"])
    again = project.run("--iterations=1", "--autoresearch-max-noise=0.5")
    assert again.ret == 0
