"""Bounds on what a gain may cost: checked on a finished trial, before anything is kept."""

from __future__ import annotations

import statistics
from collections.abc import Sequence

from .experiment import Experiment, Guard
from .records import GateNote, TrialRecord
from .trial import TrialResult

TIMES_BASELINE = 2.0
"""Times the baseline's seconds that a trial may take, everything included."""

SLACK_S = 20.0
"""Seconds beyond that, so that a short command on a busy machine breaks no bound."""

Measured = TrialRecord | TrialResult


def figure(trial: Measured, name: str) -> float | None:
    """Return a figure of a trial: one of its fields, or a metric that it printed.

    ``total_seconds``, ``train_seconds``, ``cpu_seconds``, ``steps``, ``work``, ``parameters`` and
    ``peak_memory_bytes`` are measured from outside; every other name is self-reported.
    """
    if name in ("total_seconds", "train_seconds", "cpu_seconds", "steps", "work", "parameters",
                "peak_memory_bytes"):  # fmt: skip
        return float(getattr(trial, name))
    if name == "scoring_cpu_seconds":
        return scoring_seconds(trial)
    return trial.metrics.get(name)


def scoring_seconds(trial: Measured) -> float | None:
    """CPU seconds of loading and scoring, all passes together; None where they are unknown."""
    spent = trial.evidence.get("scoring_cpu_s")
    return float(spent) if isinstance(spent, int | float) else None


def built_in(
    experiment: Experiment, wall_budget: bool, baseline: Sequence[TrialRecord]
) -> tuple[Guard, ...]:
    """Guards that every experiment has.

    Where the budget is a time of the outside clock, the whole trial is bounded by it too. Where it
    is counted work, wall seconds belong to whoever shares the machine, so CPU seconds of scoring
    are bounded instead; training is as long as the budget says.
    """
    name = "total_seconds" if wall_budget else "scoring_cpu_seconds"
    if not wall_budget and experiment.run is not None:
        return ()
    known = [v for v in (figure(trial, name) for trial in baseline) if v is not None]
    if not known:
        return ()
    return (Guard(name, at_most=TIMES_BASELINE * statistics.fmean(known) + SLACK_S),)


def check(
    trial: Measured, baseline: Sequence[TrialRecord], guards: Sequence[Guard]
) -> list[GateNote]:
    """Hold a trial against every guard.

    Args:
        trial: Finished, with a score.
        baseline: The calibration's trials, for bounds that are multiples of theirs.
        guards: Built-in ones and the user's.

    Returns:
        One note a guard; a note that is not ok names the figure, its value and its bound.
    """
    return [_check(trial, baseline, guard) for guard in guards]


def _check(trial: Measured, baseline: Sequence[TrialRecord], guard: Guard) -> GateNote:
    name, value = f"guard {guard.metric}", figure(trial, guard.metric)
    if value is None:
        declared = guard.at_most_times_baseline is None
        return GateNote(
            name,
            not declared,
            f"{guard.metric} was not reported, and is bounded" if declared else "",
        )
    said = f"{guard.metric} {value:g}"
    if guard.at_most is not None and value > guard.at_most:
        return GateNote(name, False, f"{said} is above its bound {guard.at_most:g}")
    if guard.at_least is not None and value < guard.at_least:
        return GateNote(name, False, f"{said} is below its bound {guard.at_least:g}")
    if guard.at_most_times_baseline is not None:
        known = [v for v in (figure(t, guard.metric) for t in baseline) if v is not None]
        if known:
            usual = statistics.fmean(known)
            bound = guard.at_most_times_baseline * usual
            if value > bound:
                return GateNote(
                    name,
                    False,
                    f"{said} is above its bound {bound:g} "
                    f"({guard.at_most_times_baseline:g} x the baseline's {usual:g})",
                )
    return GateNote(name, True, said)
