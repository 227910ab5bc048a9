"""When a training run is given up before its budget ends.

Three rules with wide margins: its loss exploded; it cannot catch up with the champion; it hangs. On
the curves of 257 real trials of the shipped experiment the first two end none of the 103 that were
better than their champion. A loss that is no number ends a run at once, elsewhere. Never a ranking
after a short budget, which is biased against larger models.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

Curve = Sequence[tuple[float, float]]

FROM = 0.5
"""Share of the budget before which no run is given up for being behind."""

UNTIL = 0.9
"""Share of the budget after which no run is: its score is worth more than the rest of its time."""

MARGIN = 0.05
"""Nats behind the champion, beyond what it gained in its second half, at which a run is given up;
none of 103 winners ever was."""

WINDOW = 0.06
"""Share of the budget over which losses are averaged."""

WINDOW_LOSSES = 8
"""Losses that a window must hold at least; a run of few steps is too noisy to be compared."""

LOOK_EVERY = 0.02
"""Share of the budget after which a run is looked at again."""

EXPLODED_FROM = 0.1
"""Share of the budget before which a loss may do what it likes."""

EXPLODED_TIMES = 1.5
"""Times its first value at which a loss has exploded; of an untrained model, 1 is chance."""

SILENCE_S = 60.0
"""Wall seconds without a word after which a run is asked for its work, and again as long."""

SILENCE_SHARE = 0.01
"""Share of one core below which a process does no work."""


def behind(curve: Curve, champion: Curve, fraction: float) -> float | None:
    """How far a run is behind the champion at `fraction` of the budget.

    Returns:
        Difference of mean losses over the window, in nats; None where either has too few there.
    """
    own, other = _mean(curve, fraction), _mean(champion, fraction)
    return None if own is None or other is None else own - other


def hopeless(curve: Curve, champion: Curve) -> str:
    """Say why a run is given up for being behind, or ''.

    It must be behind by the margin now and one window ago, beyond all that the champion gained in
    its second half: a run that only lowers its rates later may still have that before it.

    Args:
        curve: Pairs (share of the budget, training loss) so far.
        champion: The champion's, on the same seed; the same loss must be meant by both.
    """
    if not curve or not champion or not FROM + WINDOW <= curve[-1][0] <= UNTIL:
        return ""
    now = curve[-1][0]
    gap, before = behind(curve, champion, now), behind(curve, champion, now - WINDOW)
    half, end = _mean(champion, FROM), _mean(champion, champion[-1][0])
    if gap is None or before is None or half is None or end is None:
        return ""
    if min(gap, before) <= MARGIN + max(0.0, half - end):
        return ""
    return (
        f"stopped at {now:.0%} of its budget: its training loss is {gap:.2f} nats behind the "
        "champion's at the same point"
    )


def exploded(curve: Curve) -> str:
    """Say that a loss exploded, or ''; compared with its own beginning, so any loss will do.

    It must be above the bound now and one window ago.

    Args:
        curve: Pairs (share of the budget, training loss) so far.
    """
    if not curve or not EXPLODED_FROM + WINDOW <= curve[-1][0] <= UNTIL:
        return ""
    now, start = curve[-1][0], curve[0][1]
    loss, before = _mean(curve, now), _mean(curve, now - WINDOW)
    if start <= 0 or loss is None or before is None or min(loss, before) <= EXPLODED_TIMES * start:
        return ""
    return (
        f"stopped at {now:.0%} of its budget: its training loss is {loss:.2f}, and was {start:.2f} "
        "before training"
    )


class Silence:
    """Notices a process that owes a word, and neither says it nor works on it.

    Slow is not silent: a step may take as long as it needs, as long as it computes. CPU time is
    read once a `SILENCE_S` only, and so never in a run whose steps are short.

    Args:
        now: Wall seconds, of any clock that does not stop.
        cpu_seconds: Reads the CPU seconds of the whole process group so far.
    """

    def __init__(self, now: float, cpu_seconds: Callable[[], float]) -> None:
        self._began = self._since = now
        self._cpu_seconds = cpu_seconds
        self._spent: float | None = None

    def reason(self, now: float) -> str:
        """Say that the process hangs, or ''."""
        if now - self._since <= SILENCE_S:
            return ""
        before, self._spent = self._spent, self._cpu_seconds()
        share = None if before is None else (self._spent - before) / (now - self._since)
        self._since = now
        if share is None or share > SILENCE_SHARE:
            return ""
        return f"hangs: it asked for no batch in {now - self._began:.0f} seconds, and used no CPU"


def _mean(curve: Curve, fraction: float) -> float | None:
    losses = [loss for at, loss in curve if fraction - WINDOW <= at <= fraction]
    return sum(losses) / len(losses) if len(losses) >= WINDOW_LOSSES else None
