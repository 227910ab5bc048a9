"""Clocks of a training budget: wall time, tokens or batches; `workclock` has that of CPU work.

A clock belongs to the harness: it admits every batch and is polled in between. The candidate
learns its `progress` and nothing else.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from statistics import median

BATCH_SHARE = 0.25
"""Largest share of a budget in tokens that one batch may hold, once the baseline's is known."""

_GAPS = 9
_SLACK = 0.01
_LEAST_SLACK_S = 0.02
"""A process cannot be measured or stopped more precisely than this on a busy machine."""

_JITTER = 1.1


class BudgetTooSmall(Exception):
    """The batch requested is larger than the budget allows."""


class Clock(ABC):
    """Position of a run in its budget; polled every `poll_seconds` at least."""

    poll_seconds = 0.5

    def begin(self, charged_s: float = 0.0) -> None:
        """Start the budget at the request for the first batch; charge seconds used before it."""
        self.charge(charged_s)

    @abstractmethod
    def charge(self, seconds: float) -> None:
        """Count seconds that were used outside of the training loop, above their allowance."""

    @abstractmethod
    def admit(self, tokens: int) -> bool:
        """Return whether a batch of `tokens` fits the budget, and count it if so.

        Raises:
            BudgetTooSmall: The batch is larger than the budget allows.
        """

    def poll(self) -> None:  # noqa: B027
        """Do what is due between batches."""

    def end(self) -> None:  # noqa: B027
        """Stop counting at the end of the training loop: saving has an allowance of its own."""

    @property
    @abstractmethod
    def progress(self) -> float:
        """Used fraction of the budget; never decreases."""

    @property
    def overdue(self) -> bool:
        """Whether more was used than the budget and its slack."""
        return self.overdue_with(0.0)

    @abstractmethod
    def overdue_with(self, seconds: float) -> bool:
        """Return whether it would be overdue if `seconds` more were charged."""

    def facts(self) -> dict[str, float]:
        """Return figures for the record."""
        return {}


def largest_batch(amount: float, step: float) -> float:
    """Return the most tokens that one batch may hold; the whole budget while `step` is unknown."""
    return max(BATCH_SHARE * amount, step) if step else amount


def check_batch(tokens: int, largest: float) -> None:
    """Raise `BudgetTooSmall` if a batch is larger than allowed."""
    if tokens > largest:
        raise BudgetTooSmall(
            f"asked for a batch of {tokens} tokens; within this budget a batch may hold {largest:g}"
        )


class WorkClock(Clock):
    """A budget of tokens: at most `amount` are handed out, however long that takes."""

    def __init__(self, amount: float, step: float = 0.0) -> None:
        self._amount = amount
        self._largest = largest_batch(amount, step)
        self._tokens = 0
        self._charged_s = 0.0

    def charge(self, seconds: float) -> None:
        """Tokens have no price in seconds: the run is overdue as soon as any are charged."""
        self._charged_s += seconds

    def overdue_with(self, seconds: float) -> bool:
        """Return whether seconds were used above an allowance."""
        return self._charged_s + seconds > 0

    def admit(self, tokens: int) -> bool:
        """Return whether the batch fits into the remaining tokens."""
        check_batch(tokens, self._largest)
        if self._tokens + tokens > self._amount:
            return False
        self._tokens += tokens
        return True

    @property
    def progress(self) -> float:
        """Fraction of the tokens handed out, before this batch."""
        return min(self._tokens / self._amount, 1.0)


class StepClock(WorkClock):
    """A budget of batches, for smoke runs.

    Args:
        steps: Batches.
        spare_s: Seconds outside of the loop that may be charged: as many as a whole budget holds,
            since the training itself may use them so.
    """

    def __init__(self, steps: int, spare_s: float = 0.0) -> None:
        super().__init__(steps)
        self._spare_s = spare_s

    def overdue_with(self, seconds: float) -> bool:
        """Return whether more seconds were charged than a whole budget holds."""
        return super().overdue_with(seconds - self._spare_s)

    def admit(self, tokens: int) -> bool:
        """Return whether one more batch fits."""
        return super().admit(1)


class RunningClock(Clock):
    """A budget that passes while the candidate runs.

    It ends at the batch that begins nearest to its end, or earlier where the next step might end
    later than the slack of one per cent or one step of the baseline allows. The slack does not grow
    with the candidate's own steps, so long steps gain nothing.

    Args:
        amount: The budget.
        step: The baseline's step in the same unit; 0 while it is not known (for the baseline's own
            runs, whose slack is two of their steps).
    """

    poll_seconds = 0.2

    def __init__(self, amount: float, step: float = 0.0) -> None:
        self._amount = amount
        self._step = step
        self._charged = 0.0
        self._asked: float | None = None
        self._gaps: deque[float] = deque(maxlen=_GAPS)
        self._progress = 0.0
        self._unforeseen = 0.0  # how far a burst put the clock past its end

    @abstractmethod
    def used(self) -> float:
        """Return the use so far, in units of the budget."""

    def admit(self, tokens: int) -> bool:
        """Return whether a usual step that begins now lies mostly inside the budget."""
        used = self.used()
        if self._asked is not None:
            self._gaps.append(max(0.0, used - self._asked))
        self._asked = used
        return self._fits(used, self._usual_step())

    @property
    def progress(self) -> float:
        """Used fraction of the budget, in [0, 1)."""
        self._progress = max(self._progress, min(self.used() / self._amount, 1.0 - 1e-9))
        return self._progress

    @abstractmethod
    def price(self, seconds: float) -> float:
        """Convert charged seconds to the unit of the budget."""

    def charge(self, seconds: float) -> None:
        """Count the seconds."""
        self._charged += self.price(seconds)

    def overdue_with(self, seconds: float) -> bool:
        """Return whether more would be used than the budget and its slack."""
        used = self.used() + self.price(seconds)
        return used - self._amount - self._unforeseen > self.slack

    @property
    def slack(self) -> float:
        """How far beyond the budget a run may end."""
        step = self._step or 2 * self._usual_step()
        return max(self._amount * _SLACK, step, self.price(_LEAST_SLACK_S))

    def _fits(self, used: float, step: float) -> bool:
        nearest = used + step / 2 < self._amount
        return nearest and used + _JITTER * step <= self._amount + self.slack

    def _usual_step(self) -> float:
        return median(self._gaps) if self._gaps else 0.0


class WallClock(RunningClock):
    """A budget of wall seconds, measured outside of the candidate."""

    def __init__(
        self, seconds: float, now: Callable[[], float] = time.monotonic, step: float = 0.0
    ) -> None:
        super().__init__(seconds, step)
        self._now = now
        self._began: float | None = None
        self._ended: float | None = None

    def begin(self, charged_s: float = 0.0) -> None:
        """Start the clock."""
        self._began = self._now()
        super().begin(charged_s)

    def end(self) -> None:
        """Stop the clock."""
        self._ended = self._now()

    def price(self, seconds: float) -> float:
        """Return the seconds: they are the unit of this budget."""
        return seconds

    def used(self) -> float:
        """Return the seconds from `begin` to `end`, and those charged."""
        if self._began is None:
            return 0.0
        return self._charged + (self._ended or self._now()) - self._began
