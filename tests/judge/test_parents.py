"""Parent selection, retests, merges and stop conditions."""

from __future__ import annotations

import itertools
import sys
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project, git

from pytest_autoresearch import Edit, Metric
from pytest_autoresearch.core.proposal import Origin
from pytest_autoresearch.core.records import Attempt, Champion
from pytest_autoresearch.judge.parents import (
    BEST,
    FORMER,
    MERGED,
    PATIENCE,
    STACKED,
    STRUCTURAL,
    near_misses,
    next_step,
    since_keep,
    stack,
    stop,
)

BASE = Champion(1, 1, "c1", {1: 1.0}, 0.0)
BETTER = Champion(2, 5, "c5", {1: 0.9}, 0.0)


def attempt(
    number: int, verdict: str | None, sigma: float = -1.0, champion: int = 1, **more: object
) -> Attempt:
    state = "done" if verdict else "running"
    values = {
        "kind": "mutation", "gain_sigma": sigma, "commit": f"c{number}", "parent": champion,
        "champion_before": champion, "edits": (Edit("train.py", f"s{number}", "r"),),
        "title": f"idea {number}",
    } | more  # fmt: skip
    return Attempt(number, f"m-{number}", number=number, session_id=1, worker="w", state=state,
                      started=0.0, verdict=verdict, **values)  # fmt: skip


def test_near_misses_are_sorted_best_first() -> None:
    attempts = [
        attempt(2, "discard", 1.7),
        attempt(3, "discard", 2.1),
        attempt(4, "discard", 0.4),
        attempt(5, "keep", 3),
    ]
    assert [s.id for s in near_misses(attempts)] == [3, 2]
    assert [s.id for s in near_misses(attempts, 0.0)] == [3, 2, 4]
    assert near_misses([attempt(6, "discard", 2.0, kind="ablation")]) == []


@given(st.integers(0, 5), st.integers(1, 400))
def test_champion_selection_always_starts_from_the_champion(seed: int, number: int) -> None:
    attempts = [attempt(n, "discard", 1.6) for n in range(2, 30)]
    assert next_step("champion", attempts, [BASE], number, seed).parent == 1
    assert next_step("champion", attempts, [BASE], number, seed).proposal is None


def shares(attempts: list[Attempt], champions: list[Champion]) -> dict[int, float]:
    """Return the share of attempts for which each one is the parent."""
    chosen = [next_step("archive", attempts, champions, n, 3) for n in range(1, 2001, 2)]
    assert chosen == [next_step("archive", attempts, champions, n, 3) for n in range(1, 2001, 2)]
    return {p: sum(c.parent == p for c in chosen) / len(chosen) for p in {c.parent for c in chosen}}


def test_without_a_better_discard_every_attempt_starts_from_the_champion() -> None:
    attempts = [
        attempt(2, "discard", 0.0),
        attempt(3, "crash"),
        attempt(4, None),
        attempt(5, "keep", 4.0),
    ]
    assert shares(attempts[:3], [BASE]) == {1: 1.0}
    assert shares([*attempts, attempt(6, "discard", -0.1, champion=5)], [BASE, BETTER]) == {5: 1.0}


def test_most_attempts_build_on_one_of_the_best_discards_of_this_champion() -> None:
    old = [attempt(2, "discard", 2.0), attempt(5, "keep", 4.0)]
    new = [attempt(n, "discard", n / 10, champion=5) for n in range(6, 12)]
    found = shares([*old, *new], [BASE, BETTER])
    assert set(found) == {5, *range(12 - BEST, 12)}
    assert found[5] == pytest.approx(1 - STACKED, abs=0.05)
    for number in range(12 - BEST, 12):
        assert found[number] == pytest.approx(STACKED / BEST, abs=0.05)


def test_a_former_champion_is_a_parent_only_after_many_attempts_without_a_keep() -> None:
    attempts = [
        attempt(5, "keep", 4.0),
        *(attempt(n, "discard", champion=5) for n in range(6, 6 + PATIENCE)),
    ]
    assert shares(attempts[:-1], [BASE, BETTER]) == {5: 1.0}
    found = shares(attempts, [BASE, BETTER])
    assert set(found) == {5, 1}
    assert found[1] == pytest.approx(FORMER, abs=0.025)


def test_stack_returns_the_discards_below_a_mutation_and_itself() -> None:
    attempts = [
        attempt(2, "discard", 1.0),
        attempt(3, "discard", 1.5, parent=2),
        attempt(4, "discard", parent=3),
    ]
    by_id = {one.id: one for one in attempts}
    assert [one.id for one in stack(attempts[2], by_id, {1})] == [2, 3, 4]
    assert [one.id for one in stack(attempts[2], by_id, {1, 2})] == [3, 4]
    assert [one.id for one in stack(attempts[2], {}, {1})] == [4]


def test_a_near_miss_is_retested_once_when_the_champion_moved() -> None:
    attempts = [attempt(2, "discard", 1.1), attempt(5, "keep", 3.0)]
    again = next_step("archive", attempts, [BASE, BETTER], 6, 0)
    assert again.proposal is not None
    assert again.proposal.edits == attempts[0].edits
    assert again.proposal.origin == Origin("retest", (2,))
    assert again.parent == 5
    assert next_step("archive", attempts[:1], [BASE], 6, 0).proposal is None
    attempts.append(attempt(6, "discard", 0.9, champion=5, origin=Origin("retest", (2,))))
    assert next_step("archive", attempts, [BASE, BETTER], 8, 0).proposal is None


def test_a_retest_includes_its_stack_without_the_parts_that_were_kept() -> None:
    attempts = [
        attempt(2, "discard", 0.5),
        attempt(3, "discard", 1.2, parent=2),
        attempt(4, "discard", 0.7),
        attempt(5, "keep", 3.0, parent=4),
        attempt(6, "discard", 1.4, parent=4),
    ]
    tried = []
    while (again := next_step("archive", attempts, [BASE, BETTER], 100, 0).proposal) is not None:
        tried.append([edit.search for edit in again.edits])
        attempts.append(
            attempt(len(attempts) + 10, "discard", -1.0, champion=5, origin=again.origin)
        )
    assert tried == [["s6"], ["s2", "s3"]]


def test_merged_and_retested_attempts_in_the_champion_are_not_retested() -> None:
    attempts = [
        attempt(2, "discard", 1.2),
        attempt(3, "discard", 1.3),
        attempt(4, "discard", 1.4),
        attempt(5, "keep", 3.0, origin=Origin("merge", (2, 3))),
    ]
    again = next_step("archive", attempts, [BASE, BETTER], 100, 0).proposal
    assert again is not None
    assert again.origin == Origin("retest", (4,))
    attempts.append(attempt(6, "keep", 3.0, champion=5, origin=again.origin))
    champions = [BASE, BETTER, Champion(3, 6, "c6", {1: 0.8}, 0.0)]
    assert next_step("archive", attempts, champions, 100, 0).proposal is None


def test_edits_that_do_not_apply_are_skipped() -> None:
    attempts = [attempt(2, "discard", 1.2), attempt(3, "discard", 1.1), attempt(5, "keep", 3.0)]
    first = attempts[0].edits
    again = next_step(
        "archive", attempts, [BASE, BETTER], 6, 0, lambda edits: tuple(edits) != first
    )
    assert again.proposal is not None
    assert again.proposal.origin == Origin("retest", (3,))
    assert (
        next_step("archive", attempts, [BASE, BETTER], 6, 0, lambda edits: False).proposal is None
    )


def dry(*sigmas: float) -> list[Attempt]:
    """Return `PATIENCE` discards: these gains first, then losses."""
    gains = [*sigmas, *[-1.0] * (PATIENCE - len(sigmas))]
    return [attempt(n, "discard", gain) for n, gain in enumerate(gains, 2)]


def test_after_patience_near_misses_are_merged_and_a_structural_change_is_requested() -> None:
    attempts = dry(1.6, 1.6)
    assert next_step("archive", attempts[:-1], [BASE], 101, 0).proposal is None
    assert next_step("archive", attempts[:-1], [BASE], 101, 0).hint == ""
    merged = next_step("archive", attempts, [BASE], 101, 0)
    assert merged.proposal is not None
    assert merged.proposal.edits == (*attempts[0].edits, *attempts[1].edits)
    assert merged.parent == BASE.attempt_id
    attempts.append(attempt(40, "discard", -1.0, origin=merged.proposal.origin))
    after = next_step("archive", attempts, [BASE], 101, 0)
    assert (after.proposal, after.hint) == (None, STRUCTURAL)


def test_one_pair_is_merged_per_patience_and_each_pair_once() -> None:
    attempts, seen = dry(*(1.6 + 1.0 / n for n in range(2, 10))), []
    for number in range(101, 101 + 20 * PATIENCE):
        chosen = next_step("archive", attempts, [BASE], number, 0)
        if chosen.proposal is not None:
            seen.append(chosen.proposal.origin.attempts)
        else:
            assert chosen.hint == STRUCTURAL
        origin = chosen.proposal.origin if chosen.proposal else None
        attempts.append(attempt(number, "discard", -1.0, origin=origin))
        assert len(seen) <= since_keep(attempts) // PATIENCE
    assert seen == list(itertools.combinations(range(2, 2 + MERGED), 2))


def test_a_near_miss_is_not_merged_with_its_own_stack() -> None:
    attempts = [
        attempt(2, "discard", 1.5),
        attempt(3, "discard", 1.7, parent=2),
        attempt(4, "discard", 1.2),
    ]
    attempts += [attempt(n, "discard") for n in range(5, 5 + PATIENCE)]
    merged = next_step("archive", attempts, [BASE], 101, 0).proposal
    assert merged is not None
    assert merged.origin == Origin("merge", (3, 4))
    assert [edit.search for edit in merged.edits] == ["s2", "s3", "s4"]


def test_merges_use_the_order_in_which_the_edits_apply() -> None:
    attempts = dry(1.6, 1.6)
    other_way = (*attempts[1].edits, *attempts[0].edits)
    merged = next_step("archive", attempts, [BASE], 101, 0, lambda edits: tuple(edits) == other_way)
    assert merged.proposal is not None
    assert merged.proposal.edits == other_way
    assert next_step("archive", attempts, [BASE], 101, 0, lambda edits: False).hint == STRUCTURAL


verdicts = st.sampled_from(["keep", "discard", "crash", "invalid", "duplicate", "guard", None])


@given(
    st.lists(st.tuples(verdicts, st.floats(-3, 3)), max_size=40),
    st.integers(1, 60),
    st.integers(0, 5),
)
def test_next_step_is_deterministic_and_its_parent_is_eligible(
    past: list[tuple[str | None, float]], number: int, seed: int
) -> None:
    attempts = [attempt(n, verdict, sigma) for n, (verdict, sigma) in enumerate(past, 2)]
    champions = [BASE, *(Champion(n, s.id, s.commit, {1: 0.9}, 0.0)
                         for n, s in enumerate((s for s in attempts if s.verdict == "keep"), 2))]  # fmt: skip
    chosen = next_step("archive", attempts, champions, number, seed)
    assert chosen == next_step("archive", attempts, champions, number, seed)
    known = {c.attempt_id for c in champions} | {s.id for s in near_misses(attempts, 0.0)}
    assert chosen.parent in known
    if chosen.proposal is not None:
        assert chosen.parent == champions[-1].attempt_id
        assert chosen.proposal.edits


def test_stop_returns_the_reason() -> None:
    metric = Metric()
    dull = [attempt(n, "discard") for n in range(2, 6)]
    assert stop(dull, [BASE], metric) == ""
    assert stop(dull, [BASE], metric, plateau=4) == "plateau: 4 attempts without a keep"
    assert stop(dull, [BASE], metric, plateau=5) == ""
    kept = [*dull, attempt(BETTER.attempt_id, "keep", 3.0, gain=0.1)]
    assert "target reached" in stop(kept, [BASE, BETTER], metric, target=0.95)
    assert stop(kept, [BASE, BETTER], metric, target=0.85) == ""
    assert stop(dull, [BASE, BETTER], metric, target=0.95) == "", "its seeds may be lucky"
    assert "target reached" in stop(dull, [BASE], Metric(direction="max"), target=0.95)
    broken = [attempt(n, "crash", reason="boom") for n in range(2, 6)]
    assert "4 attempts in a row failed; the last: boom" in stop(broken, [BASE], metric, failures=4)
    assert stop([*broken, attempt(9, "discard")], [BASE], metric, failures=4) == ""


def test_since_keep_counts_finished_attempts() -> None:
    kept = attempt(3, "keep", 3.0)
    assert since_keep([attempt(2, "discard"), kept, attempt(4, "discard"), attempt(5, None)]) == 1


@pytest.mark.parametrize(
    ("options", "reason", "tried"),
    [
        (["--autoresearch-plateau=2"], "stopped: plateau: 2 attempts without a keep", 2),
        (["--autoresearch-target=0.99"], "stopped: target reached", 3),
        (["--autoresearch-max-failures=2"], "4 attempts", 4),
    ],
)
def test_a_stop_condition_ends_the_session_with_exit_code_0(
    project: Project, options: list[str], reason: str, tried: int
) -> None:
    project.propose(1.5, 1.6, 0.9, 1.7)
    result = project.run("--iterations=4", "--autoresearch-confirm=0", *options)
    assert result.ret == 0
    assert len(project.verdicts()) == tried
    result.stdout.fnmatch_lines([f"*{reason}*"])


STACKER = """
from pytest_autoresearch import Edit
from pytest_autoresearch import Proposal

class Stacker:
    name = "stacker"
    def __init__(self, *_):
        pass
    def propose(self, context):
        at = f"# attempt {context.attempt}"
        edit = Edit("train.py", "seed = int", f"SCORE -= 0.00035 {at}\\nseed = int")
        return Proposal(f"a little {at}", (edit,), proposer="stacker")
    def close(self):
        pass
"""


def test_small_gains_stack_until_they_are_significant(project: Project) -> None:
    project.write("stacker.py", STACKER)
    project.write(
        "conftest.py",
        (project.path / "conftest.py").read_text()
        + "\nfrom pytest_autoresearch.judge import parents\nparents.STACKED, parents.BEST = 1.0, 1\n",
    )
    project.commit("one that adds up")
    project.pytester.syspathinsert()
    result = project.run(
        "--iterations=4", "--autoresearch-proposer=stacker:Stacker", "--autoresearch-confirm=0"
    )
    assert result.ret == 0
    ledger = project.ledger()
    attempts = [attempt for attempt in ledger.attempts() if attempt.kind == "mutation"]
    kept = next(attempt for attempt in attempts if attempt.verdict == "keep")
    below = attempts[: attempts.index(kept)]
    assert below, "two thirds of sigma alone are no keep"
    assert [attempt.verdict for attempt in below] == ["discard"] * len(below)
    assert [attempt.parent for attempt in (*below, kept)] == [1, *(attempt.id for attempt in below)]
    assert kept.gain == pytest.approx(0.00035 * (len(below) + 1))
    # the commit is the whole of it, on the champion, and says what it consists of
    assert (kept.lines_added, kept.lines_removed) == (len(below) + 1, 0)
    base = ledger.champions()[0].commit
    assert git(project.path, "rev-parse", f"{kept.commit}^") == base
    body = git(project.path, "log", "-1", "--format=%b", kept.commit)
    for attempt in below:
        assert f"{attempt.name}: {attempt.title}" in body
    result.stdout.fnmatch_lines([f"*K *{kept.name} {kept.title} on {below[-1].name} +*"])
    done = project.pytester.run(sys.executable, "-m", "pytest_autoresearch", "finalize")
    assert done.ret == 0
    steps = git(project.path, "log", "--format=%s%n%b", f"{base}..research/main")
    assert f"Built on {below[0].name}: {below[0].title}" in steps
    page = (project.path / ".autoresearch/report.html").read_text()
    assert f"Built on {', '.join(attempt.name for attempt in below)}, included" in page


HOSTILE = """
from pytest_autoresearch import Edit, Proposal
from pytest_autoresearch.core.proposal import Origin

class Hostile:
    name = "hostile"
    def __init__(self, *_):
        pass
    def propose(self, context):
        edit = Edit("train.py", "seed = int", f"SCORE -= 0.00001  # {context.attempt}\\nseed = int")
        meta = {"merged": 5, "retest": [1], "removes": {}, "origin": "merge"}
        origin = Origin("merge" if context.attempt % 2 else "ablation", (1, 2))
        return Proposal("a hostile one", (edit,), meta=meta, origin=origin)
    def close(self):
        pass
"""


def test_meta_and_origin_of_a_proposer_have_no_effect(project: Project) -> None:
    project.write("hostile.py", HOSTILE)
    project.commit("add a hostile proposer")
    project.pytester.syspathinsert()
    options = ("--autoresearch-proposer=hostile:Hostile", "--autoresearch-confirm=0")
    assert project.run("--iterations=3", *options).ret == 0
    ledger = project.ledger()
    attempts = [attempt for attempt in ledger.attempts() if attempt.kind == "mutation"]
    assert [attempt.meta["merged"] for attempt in attempts] == [5] * 3
    assert [attempt.origin for attempt in attempts] == [None] * 3
    plain = [replace(attempt, meta={}) for attempt in ledger.attempts()]
    for number in range(4, 40):
        steps = (
            next_step("archive", records, ledger.champions(), number, 0)
            for records in (ledger.attempts(), plain)
        )
        assert next(steps) == next(steps)


def test_consecutive_failures_end_the_session(project: Project) -> None:
    project.propose(1.5, "undefined_name", "undefined_other", 0.9)
    result = project.run("--iterations=4", "--autoresearch-max-failures=2")
    assert project.verdicts() == ["discard", "crash", "crash"]
    result.stdout.fnmatch_lines(["*stopped: 2 attempts in a row failed*"])


def test_a_noisy_experiment_is_refused_with_the_remedy(project: Project) -> None:
    project.write("train.py", (project.path / "train.py").read_text().replace("* 0.0001", "* 0.1"))
    project.commit("noisy")
    project.propose(0.5)
    result = project.run("--iterations=1")
    assert result.ret == 1
    assert "keep" not in project.verdicts()
    result.stdout.fnmatch_lines(["*too noisy: 3 runs of the same code*--autoresearch-max-noise*"])
    again = project.run("--iterations=1", "--autoresearch-max-noise=0.5")
    assert again.ret == 0
