"""Constraints: bounds on secondary metrics of a finished run, checked before a keep."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from ..core.experiment import Budget, Experiment, Guard
from ..core.records import CheckNote
from ..core.run import Run

TIMES_BASELINE = 2.0
"""Bound on the seconds of a run, as a multiple of the baseline's."""

SLACK_S = 20.0
"""Seconds added to that bound, so that short commands pass it on a busy machine."""

FIELDS = ("total_seconds", "train_seconds", "cpu_seconds", "steps", "work", "parameters",
          "peak_memory_bytes")  # fmt: skip
"""Fields of a run that the harness measures; 0 where it could not."""

MEASURED = (*FIELDS, "tokens_per_second", "scoring_cpu_seconds")
"""All figures that the harness measures."""

LAST_LINES = 80
"""Lines of a failed check's output that are shown."""


def figure(run: Run, name: str) -> float | None:
    """Return a figure of a run, or None where it is unknown.

    Figures in `MEASURED` come from the harness. All others, and those of a command that the harness
    cannot measure (its steps), come from the metrics that the candidate reported.
    """
    value: float | None = None
    if name in FIELDS:
        value = float(getattr(run, name))
    elif name == "tokens_per_second" and run.train_seconds:
        value = run.work / run.train_seconds
    elif name == "scoring_cpu_seconds":
        value = scoring_seconds(run)
    if value or (name in MEASURED and run.score_kind != "self-reported"):
        return value or None
    return run.metrics.get(name)


def scoring_seconds(run: Run) -> float | None:
    """Return the CPU seconds of loading and scoring in all passes, or None where unknown."""
    seconds = run.evidence.get("scoring_cpu_s")
    return float(seconds) if isinstance(seconds, int | float) else None


def built_in(
    experiment: Experiment,
    wall_budget: bool,
    baseline: Sequence[Run],
    memory_bound_bytes: int | None = None,
) -> tuple[Guard, ...]:
    """Return the constraints that every experiment has.

    A wall budget also bounds the wall time of the whole run. With budgets of counted work, wall
    time depends on the load of the machine, so CPU seconds are bounded instead: those of scoring
    and, where only tokens are counted, those of training.

    Args:
        experiment: Scoring is bounded unless it is a command.
        wall_budget: Whether the budget is wall time.
        baseline: Runs of the calibration.
        memory_bound_bytes: Bound on the peak memory of a run, or None.
    """
    names = []
    if wall_budget:
        names.append("total_seconds")
    elif baseline and Budget.parse(baseline[0].budget).kind == "work":
        names.append("cpu_seconds")
    if not wall_budget and experiment.run is None:
        names.append("scoring_cpu_seconds")
    guards = [
        Guard(name, at_most=TIMES_BASELINE * usual + SLACK_S)
        for name in names
        if (usual := _baseline_mean(baseline, name))
    ]
    if memory_bound_bytes:
        guards.append(Guard("peak_memory_bytes", at_most=memory_bound_bytes))
    return tuple(guards)


def check(run: Run, baseline: Sequence[Run], guards: Sequence[Guard]) -> list[CheckNote]:
    """Check a finished run against every guard; return one note for each.

    A figure that the candidate does not report violates its bound, or omitting it would evade the
    constraint; a figure that the harness could not measure does not.
    """
    return [_check(run, baseline, guard) for guard in guards]


def _check(run: Run, baseline: Sequence[Run], guard: Guard) -> CheckNote:
    metric, times = guard.metric, guard.at_most_times_baseline
    name, value = f"guard {metric}", figure(run, metric)
    if value is None:
        absolute = guard.at_most is not None or guard.at_least is not None
        reported = any(metric in known.metrics for known in baseline)
        if reported or (absolute and metric not in MEASURED):
            return CheckNote(name, False, f"{metric} was not reported, and is bounded")
        return CheckNote(name, True, f"{metric} is unknown")
    shown = f"{metric} {_text(metric, value)}"
    if not math.isfinite(value):
        return CheckNote(name, False, f"{shown} is not finite")
    if guard.at_most is not None and value > guard.at_most:
        return CheckNote(name, False, f"{shown} is above its bound {_text(metric, guard.at_most)}")
    if guard.at_least is not None and value < guard.at_least:
        return CheckNote(name, False, f"{shown} is below its bound {_text(metric, guard.at_least)}")
    usual = None if times is None else _baseline_mean(baseline, metric)
    if times is not None and usual is not None and value > times * usual:
        bound, base = _text(metric, times * usual), _text(metric, usual)
        return CheckNote(
            name, False, f"{shown} is above its bound {bound} ({times:g} x the baseline's {base})"
        )
    return CheckNote(name, True, shown)


def last_lines(run: Run, count: int = LAST_LINES) -> str:
    """Return the last `count` lines that a run, or a check, printed."""
    return "\n".join(f"{run.log_head}{run.log_tail}".rstrip().splitlines()[-count:])


def _baseline_mean(baseline: Sequence[Run], name: str) -> float | None:
    values = [value for run in baseline if (value := figure(run, name)) is not None]
    return fmean(values) if values else None


def _text(metric: str, value: float) -> str:
    mebi = metric.endswith("_bytes") and abs(value) >= 2**20 and math.isfinite(value)
    return f"{value / 2**20:.0f} MiB" if mebi else f"{value:g}"
