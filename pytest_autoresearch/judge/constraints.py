"""Bounds on what a gain may cost: checked on a finished trial, before anything is kept."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence

from ..core.experiment import Budget, Experiment, Guard
from ..core.records import CheckNote
from ..core.run import Run

TIMES_BASELINE = 2.0
"""Times the baseline's seconds that a trial may take, everything included."""

SLACK_S = 20.0
"""Seconds beyond that, so that a short command on a busy machine breaks no bound."""

FIELDS = ("total_seconds", "train_seconds", "cpu_seconds", "steps", "work", "parameters",
          "peak_memory_bytes")  # fmt: skip
"""Fields of a trial that the harness measures; 0 where it could not."""

MEASURED = (*FIELDS, "tokens_per_second", "scoring_cpu_seconds")
"""Every figure that is measured from outside."""

LAST_LINES = 80
"""Lines of a failed check's output that are worth showing."""

Measured = Run | Run


def figure(run: Measured, name: str) -> float | None:
    """Return a figure of a trial, or None where it is not known.

    What is in `MEASURED` comes from outside. Every other name is looked up among the metrics that
    the candidate reported of itself, and so is what could not be measured (a command's steps).
    """
    known: float | None = None
    if name in FIELDS:
        known = float(getattr(run, name))
    elif name == "tokens_per_second" and run.train_seconds:
        known = run.work / run.train_seconds
    elif name == "scoring_cpu_seconds":
        known = scoring_seconds(run)
    return known or run.metrics.get(name)


def scoring_seconds(run: Measured) -> float | None:
    """CPU seconds of loading and scoring, all passes together; None where they are unknown."""
    spent = run.evidence.get("scoring_cpu_s")
    return float(spent) if isinstance(spent, int | float) else None


def built_in(
    experiment: Experiment,
    wall_budget: bool,
    baseline: Sequence[Run],
    memory_bound_bytes: int | None = None,
) -> tuple[Guard, ...]:
    """Guards that every experiment has.

    Where the budget is a time of the outside clock, the whole trial is bounded by it too. Where it
    is counted work, wall seconds belong to whoever shares the machine, so CPU seconds are bounded
    instead: those of scoring, and, where nothing but tokens is counted, those of training.

    Args:
        experiment: A command has no scoring of its own.
        wall_budget: Whether the budget is wall time.
        baseline: The calibration's trials.
        memory_bound_bytes: Nine tenths of the device's memory, shared among the trials on it.
            While a trial runs, its memory is looked at a few times a second; this is held against
            the peak that was found at its end.
    """
    names = []
    if wall_budget:
        names.append("total_seconds")
    elif baseline and Budget.parse(baseline[0].budget).kind == "work":
        names.append("cpu_seconds")
    if not wall_budget and experiment.run is None:
        names.append("scoring_cpu_seconds")
    found = []
    for name in names:
        if usual := _usual(baseline, name):
            found.append(Guard(name, at_most=TIMES_BASELINE * usual + SLACK_S))
    if memory_bound_bytes:
        found.append(Guard("peak_memory_bytes", at_most=memory_bound_bytes))
    return tuple(found)


def check(run: Measured, baseline: Sequence[Run], guards: Sequence[Guard]) -> list[CheckNote]:
    """Hold a trial against every guard.

    Args:
        run: Finished, with a score.
        baseline: The calibration's trials, for bounds that are multiples of theirs.
        guards: Built-in ones and the user's.

    Returns:
        One note a guard; a note that is not ok names the figure, its value and its bound. A figure
        that the candidate should have reported breaks its bound, or saying nothing would be a way
        around it; one that the harness could not measure does not.
    """
    return [_check(run, baseline, guard) for guard in guards]


def _check(run: Measured, baseline: Sequence[Run], guard: Guard) -> CheckNote:
    metric, times = guard.metric, guard.at_most_times_baseline
    name, value = f"guard {metric}", figure(run, metric)
    usual = None if times is None else _usual(baseline, metric)
    if value is None:
        absolute = guard.at_most is not None or guard.at_least is not None
        printed = any(metric in known.metrics for known in baseline)
        if printed or (absolute and metric not in MEASURED):
            return CheckNote(name, False, f"{metric} was not reported, and is bounded")
        return CheckNote(name, True, f"{metric} is not known")
    said = f"{metric} {_text(metric, value)}"
    if not math.isfinite(value):
        return CheckNote(name, False, f"{said} is no figure")
    if guard.at_most is not None and value > guard.at_most:
        return CheckNote(name, False, f"{said} is above its bound {_text(metric, guard.at_most)}")
    if guard.at_least is not None and value < guard.at_least:
        return CheckNote(name, False, f"{said} is below its bound {_text(metric, guard.at_least)}")
    if times is not None and usual is not None and value > times * usual:
        bound, base = _text(metric, times * usual), _text(metric, usual)
        return CheckNote(
            name, False, f"{said} is above its bound {bound} ({times:g} x the baseline's {base})"
        )
    return CheckNote(name, True, said)


def last_lines(run: Measured, count: int = LAST_LINES) -> str:
    """The end of what a trial, or a check, printed.

    Args:
        run: Its output is kept as a head and a tail; a short one is all head.
        count: Lines at most.
    """
    joined = f"{run.log_head}{run.log_tail}".rstrip()
    return "\n".join(joined.splitlines()[-count:])


def _usual(baseline: Sequence[Run], name: str) -> float | None:
    known = [value for run in baseline if (value := figure(run, name)) is not None]
    return statistics.fmean(known) if known else None


def _text(metric: str, value: float) -> str:
    mebi = metric.endswith("_bytes") and abs(value) >= 2**20 and math.isfinite(value)
    return f"{value / 2**20:.0f} MiB" if mebi else f"{value:g}"
