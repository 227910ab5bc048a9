"""Bounds on what a gain may cost."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Project
from pytest_autoresearch.experiment import Experiment, Guard
from pytest_autoresearch.guards import built_in, check
from pytest_autoresearch.records import TrialRecord

CONFTEST = """\
import sys
import pytest
from pytest_autoresearch.experiment import Experiment, Guard

@pytest.fixture(scope="session")
def experiment():
    return Experiment(context=(), run=(sys.executable, "train.py"), {more})
"""


def trial(**figures: float) -> TrialRecord:
    metrics = {k: figures.pop(k) for k in list(figures) if k not in ("total_seconds", "steps")}
    return TrialRecord(1, 1, 1, "first", "done", metrics=metrics, **figures)


def idea(lines: str) -> str:
    return (
        f"Title: an idea\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
        f"{lines}\n# ideas go here\n>>>>>>> REPLACE\n"
    )


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_bound_is_broken_exactly_above_it(value: float, bound: float) -> None:
    [note] = check(trial(latency=value), [], [Guard("latency", at_most=bound)])
    assert note.ok == (value <= bound)
    [note] = check(trial(latency=value), [], [Guard("latency", at_least=bound)])
    assert note.ok == (value >= bound)


def test_a_guard_says_its_name_its_figure_and_its_bound() -> None:
    baseline = [trial(total_seconds=10.0), trial(total_seconds=12.0)]
    [note] = check(
        trial(total_seconds=30.0), baseline, [Guard("total_seconds", at_most_times_baseline=2)]
    )
    assert not note.ok
    assert note.name == "guard total_seconds"
    assert note.detail == "total_seconds 30 is above its bound 22 (2 x the baseline's 11)"


def test_a_bounded_figure_that_is_not_reported_breaks_its_bound() -> None:
    [note] = check(trial(), [], [Guard("latency", at_most=1)])
    assert (note.ok, "not reported" in note.detail) == (False, True)


def test_only_a_budget_of_the_outside_clock_bounds_the_whole_trial() -> None:
    usual = TrialRecord(
        1, 1, 1, "calibrate", "done", total_seconds=300.0, evidence={"scoring_cpu_s": 5.0}
    )
    assert built_in(Experiment(), True, [usual]) == (Guard("total_seconds", at_most=620.0),)
    assert built_in(Experiment(), False, [usual]) == (Guard("scoring_cpu_seconds", at_most=30.0),)
    assert built_in(Experiment(run=("x",)), False, [usual]) == ()


@pytest.fixture
def bounded(project: Project) -> Project:
    def with_(more: str) -> Project:
        project.write("conftest.py", CONFTEST.format(more=more))
        project.commit("bounds")
        return project

    return with_


def test_a_broken_bound_is_the_verdict_guard(bounded) -> None:
    project = bounded('guards=(Guard("params", at_most=10),)')
    text = (project.path / "train.py").read_text()
    text = text.replace("# ideas", "PARAMS = 7\n# ideas") + 'print("params:", PARAMS)\n'
    project.write("train.py", text)
    project.commit("reports params")
    project.propose(idea("PARAMS = 50\nSCORE = 0.5"), idea("PARAMS = 3\nSCORE = 0.9"))
    result = project.run("--iterations=2", "--autoresearch-confirm=0", "--junitxml=log.xml")
    assert project.verdicts() == ["guard", "keep"]
    result.stdout.fnmatch_lines(["*G 0.500*mutation-0001*"])
    [slot] = [s for s in project.ledger().slots() if s.verdict == "guard"]
    assert slot.reason == "params 50 is above its bound 10"
    assert slot.score == pytest.approx(0.5, abs=0.001)
    assert project.ledger().champion().version == 2


def test_checks_run_in_the_mutated_copy_before_a_keep(bounded) -> None:
    project = bounded('checks="grep -q GOOD train.py || { echo no GOOD in it; exit 3; }"')
    project.propose(idea("BAD = 1\nSCORE = 0.5"), idea("GOOD = 1\nSCORE = 0.6"), 1.5)
    project.run("--iterations=3", "--autoresearch-confirm=0")
    assert project.verdicts() == ["guard", "keep", "discard"]
    first, _, third = [s for s in project.ledger().slots() if s.kind == "mutation"]
    assert "exited with status 3: no GOOD in it" in first.reason
    assert not any(trial.purpose == "check" for trial in third.trials)
