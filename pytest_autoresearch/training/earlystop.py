"""Early stopping of a training run whose loss explodes or whose process hangs.

A loss that is NaN or infinite ends a run at once, in `protocol`. Runs are never ranked after a
short budget, which would be biased against larger models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Curve = Sequence[tuple[float, float]]

EXPLODED_FROM, EXPLODED_UNTIL = 0.1, 0.9
"""Fractions of the budget between which an exploding loss stops a run; after that, its score is
worth more than the rest of its time."""

EXPLODED_RATIO = 1.5
"""Ratio of the loss to its first value above which it has exploded."""

WINDOW, WINDOW_LOSSES = 0.06, 8
"""Fraction of the budget over which losses are averaged, and their minimum number."""

LOOK_EVERY = 0.02
"""Fraction of the budget between two checks."""

SILENCE_S, SILENCE_SHARE = 60.0, 0.01
"""Wall seconds without a message between two readings of CPU time, and the share of one core below
which a process counts as idle."""


def exploded(curve: Curve) -> str:
    """Return why the run must stop if its loss exploded, else ''.

    The mean loss must exceed the bound in the last window and in the one before. It is compared
    with the run's own first loss, so the unit of the loss does not matter.

    Args:
        curve: Pairs (fraction of the budget, training loss) so far.
    """
    if not curve or not EXPLODED_FROM + WINDOW <= curve[-1][0] <= EXPLODED_UNTIL:
        return ""
    now, start = curve[-1][0], curve[0][1]
    loss, before = _mean(curve, now), _mean(curve, now - WINDOW)
    if start <= 0 or loss is None or before is None or min(loss, before) <= EXPLODED_RATIO * start:
        return ""
    return (
        f"stopped at {now:.0%} of its budget: the training loss is {loss:.2f}, up from "
        f"{start:.2f} before training"
    )


class Silence:
    """Detects a process that neither sends the message that is due nor uses the CPU.

    A step may take any time as long as it computes. CPU time is read once per `SILENCE_S` only,
    so never in a run whose steps are short.

    Args:
        now: Wall seconds of a monotonic clock.
        cpu_seconds: Reads the CPU seconds of the whole process group so far.
    """

    def __init__(self, now: float, cpu_seconds: Callable[[], float]) -> None:
        self._began = self._since = now
        self._cpu_seconds = cpu_seconds
        self._spent: float | None = None

    def reason(self, now: float) -> str:
        """Return why the run must stop if the process hangs, else ''."""
        if now - self._since <= SILENCE_S:
            return ""
        before, self._spent = self._spent, self._cpu_seconds()
        share = None if before is None else (self._spent - before) / (now - self._since)
        self._since = now
        if share is None or share > SILENCE_SHARE:
            return ""
        return f"hangs: no batch requested for {now - self._began:.0f} seconds, and no CPU used"


def _mean(curve: Curve, fraction: float) -> float | None:
    losses = [loss for at, loss in curve if fraction - WINDOW <= at <= fraction]
    return sum(losses) / len(losses) if len(losses) >= WINDOW_LOSSES else None
