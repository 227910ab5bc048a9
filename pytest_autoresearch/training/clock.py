"""Clocks of a training budget: wall time, tokens, batches, or CPU work counted in baseline tokens.

A clock belongs to the harness: it admits every batch and is polled in between. The candidate
learns its `progress` and nothing else.
"""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

SHARE = 0.08
"""Share of a run's CPU seconds that the reference of an `EqualWorkClock` takes."""

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


def _largest_batch(amount: float, step: float) -> float:
    return max(BATCH_SHARE * amount, step) if step else amount


def _check_batch(tokens: int, largest: float) -> None:
    if tokens > largest:
        raise BudgetTooSmall(
            f"asked for a batch of {tokens} tokens; within this budget a batch may hold {largest:g}"
        )


class WorkClock(Clock):
    """A budget of tokens: at most `amount` are handed out, however long that takes."""

    def __init__(self, amount: float, step: float = 0.0) -> None:
        self._amount = amount
        self._largest = _largest_batch(amount, step)
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
        _check_batch(tokens, self._largest)
        if self._tokens + tokens > self._amount:
            return False
        self._tokens += tokens
        return True

    @property
    def progress(self) -> float:
        """Fraction of the tokens handed out, before this batch."""
        return min(self._tokens / self._amount, 1.0)


class StepClock(WorkClock):
    """A budget of batches, for smoke runs."""

    def admit(self, tokens: int) -> bool:
        """Return whether one more batch fits."""
        return super().admit(1)


class _RunningClock(Clock):
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
        step = self._usual_step()
        nearest = used + step / 2 < self._amount
        return nearest and used + _JITTER * step <= self._amount + self.slack

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

    def _usual_step(self) -> float:
        return median(self._gaps) if self._gaps else 0.0


class WallClock(_RunningClock):
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


@dataclass(frozen=True)
class Burst:
    """CPU seconds per token of a few reference steps, and of the whole burst with its warm-up."""

    costs: tuple[float, ...]
    total_cpu_s: float


class EqualWorkClock(_RunningClock):
    """A budget of the CPU work that the baseline needs for `amount` tokens.

    The candidate's CPU seconds, read from outside, are divided by what a token costs the reference
    on this machine at that time. The reference, the campaign's baseline code, runs in short bursts
    at secret random moments while the candidate is paused, so neither disturbs the other and being
    fast only while probed gains nothing. The cost is the median of a burst's steps; between two
    bursts the speed is the mean of theirs. Wall time does not count.

    Args:
        amount: Tokens.
        cpu_seconds: Reads the candidate's CPU seconds.
        burst: Runs the reference for a moment, at the given progress.
        paused: Returns a context in which the candidate is paused.
        rng: Source of the moments.
        step: Tokens of the baseline's step; 0 while it is not known.
    """

    poll_seconds = 0.03

    def __init__(
        self,
        amount: float,
        cpu_seconds: Callable[[], float],
        burst: Callable[[float], Burst],
        paused: Callable[[], AbstractContextManager[object]],
        rng: random.Random | None = None,
        step: float = 0.0,
    ) -> None:
        super().__init__(amount, step)
        self._largest = _largest_batch(amount, step)
        self._cpu_seconds = cpu_seconds
        self._burst = burst
        self._paused = paused
        self._rng = rng or random.SystemRandom()
        self._began = 0.0
        self._ended: float | None = None
        self._at: list[float] = []  # candidate's CPU seconds at each burst
        self._costs: list[float] = []  # reference's CPU seconds per token at each burst
        self._settled = 0.0  # baseline tokens that the candidate used up to the last burst
        self._next = 0.0
        self._reference_cpu = 0.0
        self._reference_wall = 0.0

    def begin(self, charged_s: float = 0.0) -> None:
        """Take the first burst, then start to count."""
        self._began = self._cpu_seconds()
        self._take_burst()
        super().begin(charged_s)

    def price(self, seconds: float) -> float:
        """Return the tokens that the baseline would have trained on in CPU seconds."""
        return seconds / self._costs[-1]

    def end(self) -> None:
        """Stop counting."""
        self._ended = self._cpu_seconds()

    def admit(self, tokens: int) -> bool:
        """Return whether a usual step that begins now lies mostly inside the budget."""
        _check_batch(tokens, self._largest)
        return super().admit(tokens)

    def poll(self) -> None:
        """Take a burst if one is due."""
        if self._cpu_seconds() - self._began >= self._next:
            self._take_burst()

    def used(self) -> float:
        """Return the tokens that the baseline would have trained on with the CPU seconds used."""
        if not self._costs:
            return 0.0
        now = self._cpu_seconds() if self._ended is None else self._ended
        since = now - self._began - self._at[-1]
        return self._charged + self._settled + since / self._costs[-1]

    def facts(self) -> dict[str, float]:
        """Return bursts, their share of the CPU seconds, and the cost per token with its spread."""
        if not self._costs:
            return {}
        candidate = (self._ended or self._cpu_seconds()) - self._began
        middle = median(self._costs)
        return {
            "reference_bursts": float(len(self._costs)),
            "reference_cpu_s": self._reference_cpu,
            "reference_wall_s": self._reference_wall,
            "reference_share": self._reference_cpu / max(1e-9, self._reference_cpu + candidate),
            "reference_us_per_token": middle * 1e6,
            "reference_spread": median(abs(cost - middle) for cost in self._costs) / middle,
            "equivalent_tokens": self.used(),
        }

    def _take_burst(self) -> None:
        began = time.monotonic()
        with self._paused():
            at = self._cpu_seconds() - self._began
            burst = self._burst(self.progress)
        self._reference_wall += time.monotonic() - began
        self._reference_cpu += burst.total_cpu_s
        cost = median(burst.costs)
        if self._at:
            since, before = at - self._at[-1], 1 / self._costs[-1]
            shown = self._charged + self._settled + since * before
            self._settled += since * (before + 1 / cost) / 2
            # A cheaper burst reveals more use than `used` had shown: where that ends the budget,
            # the candidate is not overdue for it.
            self._unforeseen += max(
                0.0, self._charged + self._settled - max(self._amount, shown)
            )
        self._at.append(at)
        self._costs.append(cost)
        between = burst.total_cpu_s * (1 - SHARE) / SHARE
        self._next = at + between * self._rng.uniform(0.5, 1.5)
