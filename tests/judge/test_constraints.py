"""Constraints on secondary metrics."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project

from pytest_autoresearch import Experiment, Guard
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.judge.constraints import built_in, check, figure, last_lines

CONFTEST = """\
import sys
import pytest
from pytest_autoresearch import Experiment, Guard

@pytest.fixture(scope="session")
def experiment():
    return Experiment(context=(), run=(sys.executable, "train.py"), {more})
"""


def run(**figures: float) -> Run:
    fields = Run.__dataclass_fields__
    metrics = {k: figures.pop(k) for k in list(figures) if k not in fields}
    return Run("ok", metrics=metrics, **figures)


def idea(lines: str) -> str:
    return (
        f"Title: an idea\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
        f"{lines}\n# ideas go here\n>>>>>>> REPLACE\n"
    )


@given(st.floats(0, 1e6), st.floats(0, 1e6))
def test_a_bound_is_inclusive(value: float, bound: float) -> None:
    [note] = check(run(latency=value), [], [Guard("latency", at_most=bound)])
    assert note.ok == (value <= bound)
    [note] = check(run(latency=value), [], [Guard("latency", at_least=bound)])
    assert note.ok == (value >= bound)


def test_a_violated_guard_names_figure_and_bound() -> None:
    baseline = [run(total_seconds=10.0), run(total_seconds=12.0)]
    [note] = check(
        run(total_seconds=30.0), baseline, [Guard("total_seconds", at_most_times_baseline=2)]
    )
    assert not note.ok
    assert note.name == "guard total_seconds"
    assert note.detail == "total_seconds 30 is above its bound 22 (2 x the baseline's 11)"


def test_an_unreported_figure_violates_its_bound() -> None:
    [note] = check(run(), [], [Guard("latency", at_most=1)])
    assert (note.ok, "not reported" in note.detail) == (False, True)


def test_an_unreported_figure_violates_a_multiple_of_the_baseline() -> None:
    bound = [Guard("latency", at_most_times_baseline=2)]
    assert not check(run(), [run(latency=1.0)], bound)[0].ok
    assert check(run(), [run()], bound)[0].ok


def test_an_unmeasured_figure_violates_no_bound() -> None:
    [note] = check(run(), [run()], [Guard("peak_memory_bytes", at_most=1)])
    assert (note.ok, note.detail) == (True, "peak_memory_bytes is unknown")


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_non_finite_figures_violate_every_bound(value: float) -> None:
    assert not check(run(latency=value), [], [Guard("latency", at_most=1e300)])[0].ok
    assert not check(run(latency=value), [], [Guard("latency", at_least=-1e300)])[0].ok


def test_measured_figures_take_precedence_over_reported_ones() -> None:
    lying = Run("ok", parameters=50, metrics={"parameters": 1.0})
    assert figure(lying, "parameters") == 50
    assert figure(replace(lying, parameters=0), "parameters") is None
    command = Run("ok", metrics={"parameters": 7.0}, score_kind="self-reported")
    assert figure(command, "parameters") == 7
    assert figure(command, "steps") is None


def test_tokens_per_second_counts_training_seconds_only() -> None:
    fast = run(work=6000.0, train_seconds=2.0, total_seconds=60.0)
    assert figure(fast, "tokens_per_second") == 3000
    assert figure(run(), "tokens_per_second") is None
    [note] = check(fast, [], [Guard("tokens_per_second", at_least=4000)])
    assert note.detail == "tokens_per_second 3000 is below its bound 4000"


@given(
    st.floats(0, 1e6),
    st.floats(0, 1e6),
    st.floats(0.1, 10),
    st.lists(st.floats(1, 1e3), min_size=1),
)
def test_an_upper_bound_is_monotonic(
    one: float, two: float, times: float, usual: list[float]
) -> None:
    baseline = [run(latency=value) for value in usual]
    guards = [Guard("latency", at_most_times_baseline=times)]
    low, high = (check(run(latency=x), baseline, guards)[0].ok for x in sorted((one, two)))
    assert low >= high


def budgeted(budget: str, **figures: float) -> Run:
    return replace(run(**figures), budget=budget, evidence={"scoring_cpu_s": 5.0})


def test_only_a_wall_budget_bounds_the_whole_run() -> None:
    wall = budgeted("300s", total_seconds=300.0, cpu_seconds=30.0)
    assert built_in(Experiment(), True, [wall]) == (Guard("total_seconds", at_most=620.0),)
    equal, work = (replace(wall, budget=b) for b in ("equal:600ktok", "600ktok"))
    scoring, training = (
        Guard("scoring_cpu_seconds", at_most=30.0),
        Guard("cpu_seconds", at_most=80.0),
    )
    assert built_in(Experiment(), False, [equal]) == (scoring,)
    assert built_in(Experiment(), False, [work]) == (training, scoring)
    assert built_in(Experiment(run=("x",)), False, [work]) == (training,)
    assert built_in(Experiment(run=("x",)), False, [equal]) == ()
    assert built_in(Experiment(), True, []) == ()


def test_memory_is_bounded_and_shown_in_mebibytes() -> None:
    bounds = built_in(Experiment(), True, [], 9 << 30)
    [note] = check(run(peak_memory_bytes=10 << 30), [], bounds)
    assert note.detail == "peak_memory_bytes 10240 MiB is above its bound 9216 MiB"
    assert check(run(peak_memory_bytes=8 << 30), [], bounds)[0].ok


def test_last_lines_join_head_and_tail() -> None:
    short = replace(run(), log_head="".join(f"{i}\n" for i in range(100)))
    assert last_lines(short) == "\n".join(map(str, range(20, 100)))
    long = replace(run(), log_head="first\n", log_tail="second\nthird\n")
    assert last_lines(long, 2) == "second\nthird"
    assert last_lines(run()) == ""


@pytest.fixture
def bounded(project: Project) -> Project:
    def with_(more: str) -> Project:
        project.write("conftest.py", CONFTEST.format(more=more))
        project.commit("bounds")
        return project

    return with_


def test_a_violated_bound_gives_the_verdict_guard(bounded) -> None:
    project = bounded('guards=(Guard("params", at_most=10),)')
    text = (project.path / "train.py").read_text()
    text = text.replace("# ideas", "PARAMS = 7\n# ideas") + 'print("params:", PARAMS)\n'
    project.write("train.py", text)
    project.commit("reports params")
    project.propose(idea("PARAMS = 50\nSCORE = 0.5"), idea("PARAMS = 3\nSCORE = 0.9"))
    result = project.run("--iterations=2", "--autoresearch-confirm=0", "--junitxml=log.xml")
    assert project.verdicts() == ["guard", "keep"]
    result.stdout.fnmatch_lines(["*G 0.500*mutation-0001*"])
    [attempt] = [s for s in project.ledger().attempts() if s.verdict == "guard"]
    assert attempt.reason == "params 50 is above its bound 10"
    assert attempt.score == pytest.approx(0.5, abs=0.001)
    assert project.ledger().champion().version == 2


def test_checks_run_in_the_mutated_copy_before_a_keep(bounded) -> None:
    project = bounded('checks="grep -q BAD train.py && { echo BAD in it; exit 3; } || true"')
    project.propose(idea("BAD = 1\nSCORE = 0.5"), idea("GOOD = 1\nSCORE = 0.6"), 1.5)
    project.run("--iterations=3", "--autoresearch-confirm=0")
    assert project.verdicts() == ["guard", "keep", "discard"]
    first, _, third = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert "exited with status 3: BAD in it" in first.reason
    assert not any(run.purpose == "check" for run in third.runs)


@pytest.mark.parametrize(
    "bounds", [{}, {"at_most": "40"}, {"at_least": float("nan")}, {"at_most": True}]
)
def test_a_guard_without_bounds_is_refused(bounds: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="bounds nothing"):
        Guard("latency", **bounds)


def test_a_guard_on_the_metric_is_refused() -> None:
    with pytest.raises(ValueError, match="val_bpb is the metric"):
        Experiment(guards=(Guard("val_bpb", at_most=1),))


def test_a_guard_on_a_figure_missing_from_the_baseline_stops_the_session(bounded) -> None:
    project = bounded('guards=(Guard("latencey_ms", at_most=10),)')
    project.propose(0.5)
    result = project.run("--iterations=1")
    assert result.ret == 1
    result.stdout.fnmatch_lines(
        ["*Guard('latencey_ms') bounds a figure that the baseline does not*"]
    )
    assert [s.state for s in project.ledger().attempts()] == ["infra"]


def test_checks_may_be_an_executable_script(bounded) -> None:
    project = bounded('checks="./check.sh"')
    project.write("check.sh", "#!/bin/sh\ngrep -q SCORE train.py\n")
    (project.path / "check.sh").chmod(0o755)
    project.commit("a script")
    project.propose(0.5)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep"]


def test_checks_that_fail_on_the_baseline_stop_the_session(bounded) -> None:
    project = bounded('checks="echo no such tool; exit 127"')
    project.propose(0.5)
    result = project.run("--iterations=1")
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*the unchanged code does not pass the experiment's checks*127*"])
    assert [s.state for s in project.ledger().attempts()] == ["infra"]
