"""When a budget ends: by the outside clock, by tokens handed out, or by counted work.

A clock belongs to the harness. It is asked for leave before every batch, and polled in between;
the candidate learns `progress` and nothing else.
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
from typing import Protocol

SHARE = 0.08
"""Part of a trial's CPU seconds that the reference of an `EqualWorkClock` takes."""

_GAPS = 9

_SLACK = 0.01


class BudgetTooSmall(Exception):
    """The first batch asked for is larger than the whole budget."""


class Clock(Protocol):
    """How far a trial is through its budget."""

    def begin(self) -> None:
        """The first batch is asked for: the budget starts to run."""

    def admit(self, tokens: int) -> bool:
        """Whether a batch of `tokens` may be handed out; if so, it counts as handed out.

        Raises:
            BudgetTooSmall: The very first batch is larger than the budget.
        """

    def poll(self) -> None:
        """Do what is due between batches; called at least every `poll_seconds`."""

    @property
    def poll_seconds(self) -> float:
        """Longest wait between two polls."""

    @property
    def progress(self) -> float:
        """Used part of the budget, in [0, 1); never decreases."""

    @property
    def overdue(self) -> bool:
        """Whether the budget ended and no batch was asked for since, though it should have been.

        Two usual steps and one per cent of the budget are let pass.
        """

    def facts(self) -> dict[str, float]:
        """Figures for the record."""


class WorkClock:
    """A budget of tokens: never more than `amount` are handed out, whatever time they take."""

    poll_seconds = 0.5
    overdue = False

    def __init__(self, amount: float) -> None:
        self._amount = amount
        self._tokens = 0

    def begin(self) -> None:
        """Nothing runs by itself."""

    def admit(self, tokens: int) -> bool:
        """Whether the batch fits into what is left."""
        if tokens > self._amount:
            raise BudgetTooSmall(
                f"asked for a batch of {tokens} tokens, more than its budget of {self._amount:g}"
            )
        if self._tokens + tokens > self._amount:
            return False
        self._tokens += tokens
        return True

    def poll(self) -> None:
        """Nothing is due."""

    @property
    def progress(self) -> float:
        """Tokens handed out before this batch, as part of the budget."""
        return min(self._tokens / self._amount, 1.0)

    def facts(self) -> dict[str, float]:
        """Nothing that the tokens do not say."""
        return {}


class StepClock(WorkClock):
    """A budget of batches, for rehearsals."""

    def admit(self, tokens: int) -> bool:
        """Whether one more batch may be handed out."""
        return super().admit(1)


class _RunningClock(ABC):
    """A budget that runs while the candidate does; subclasses say how much is used.

    It ends at the batch whose beginning lies nearest to the end, so that long steps gain nothing.
    """

    poll_seconds = 0.2

    def __init__(self, amount: float) -> None:
        self._amount = amount
        self._asked: float | None = None
        self._gaps: deque[float] = deque(maxlen=_GAPS)
        self._progress = 0.0
        self._unforeseen = 0.0  # how far past its end the budget was set, not run

    @abstractmethod
    def begin(self) -> None:
        """The candidate asks for its first batch."""

    @abstractmethod
    def used(self) -> float:
        """Used so far, in units of the budget."""

    def poll(self) -> None:  # noqa: B027
        """Nothing is due."""

    def admit(self, tokens: int) -> bool:
        """Whether a usual step beginning now would lie more inside the budget than outside."""
        used = self.used()
        if self._asked is not None:
            self._gaps.append(max(0.0, used - self._asked))
        self._asked = used
        return used + self._usual_step() / 2 < self._amount

    @property
    def progress(self) -> float:
        """Used part of the budget."""
        self._progress = max(self._progress, min(self.used() / self._amount, 1.0 - 1e-9))
        return self._progress

    @property
    def overdue(self) -> bool:
        """Whether the budget ended more than two usual steps and a per cent ago."""
        late = self.used() - self._amount - self._unforeseen
        return late > self._amount * _SLACK + 2 * self._usual_step()

    def facts(self) -> dict[str, float]:
        """Nothing more."""
        return {}

    def _usual_step(self) -> float:
        return median(self._gaps) if self._gaps else 0.0


class WallClock(_RunningClock):
    """A budget of seconds of the outside clock."""

    def __init__(self, seconds: float, now: Callable[[], float] = time.monotonic) -> None:
        super().__init__(seconds)
        self._now = now
        self._began: float | None = None

    def begin(self) -> None:
        """Start the clock."""
        self._began = self._now()

    def used(self) -> float:
        """Seconds since `begin`."""
        return 0.0 if self._began is None else self._now() - self._began


@dataclass(frozen=True)
class Burst:
    """A few steps of the reference.

    Attributes:
        costs: CPU seconds a token of each measured step.
        total_cpu_s: CPU seconds of the whole burst, its warm-up included.
    """

    costs: tuple[float, ...]
    total_cpu_s: float


class EqualWorkClock(_RunningClock):
    """A budget of "as long as the baseline needs for `amount` tokens", counted in CPU work.

    The candidate's CPU seconds, read from outside, are divided by what a token costs the reference
    on this machine at that time. The reference, the campaign's baseline code, runs in short bursts
    at undisclosed moments, with the candidate's whole group stopped, so that neither disturbs the
    other and being fast only while probed gains nothing. Between two bursts the speed is the mean
    of theirs; within a burst, the median of its steps. Wall time does not enter.

    Args:
        amount: Tokens.
        cpu_seconds: Reads the candidate's CPU seconds.
        burst: Runs the reference for a moment; its argument is the progress to tell it.
        stopped: Makes a context in which the candidate is stopped.
        share: Part of all CPU seconds that the reference may take.
        rng: Source of the moments.
    """

    poll_seconds = 0.03

    def __init__(
        self,
        amount: float,
        cpu_seconds: Callable[[], float],
        burst: Callable[[float], Burst],
        stopped: Callable[[], AbstractContextManager[object]],
        *,
        share: float = SHARE,
        rng: random.Random | None = None,
    ) -> None:
        super().__init__(amount)
        self._cpu_seconds = cpu_seconds
        self._burst = burst
        self._stopped = stopped
        self._share = share
        self._rng = rng or random.SystemRandom()
        self._began = 0.0
        self._at: list[float] = []  # candidate's CPU seconds at each burst
        self._costs: list[float] = []  # reference's CPU seconds a token at each burst
        self._settled = 0.0  # tokens' worth of the candidate's CPU seconds up to the last burst
        self._next = 0.0
        self._reference_cpu = 0.0
        self._reference_wall = 0.0

    def begin(self) -> None:
        """Take the first burst, then start to count."""
        self._began = self._cpu_seconds()
        self._take_burst()

    def poll(self) -> None:
        """Take a burst if it is time for one."""
        if self._cpu_seconds() - self._began >= self._next:
            self._take_burst()

    def used(self) -> float:
        """Tokens that the baseline would have got through with the CPU seconds used."""
        if not self._costs:
            return 0.0
        since = self._cpu_seconds() - self._began - self._at[-1]
        return self._settled + since / self._costs[-1]

    def facts(self) -> dict[str, float]:
        """Bursts, their share of the CPU seconds, and the cost of a token: median and spread."""
        if not self._costs:
            return {}
        candidate = self._cpu_seconds() - self._began
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
        with self._stopped():
            at = self._cpu_seconds() - self._began
            burst = self._burst(self.progress)
        self._reference_wall += time.monotonic() - began
        self._reference_cpu += burst.total_cpu_s
        cost = median(burst.costs)
        if self._at:
            since, before = at - self._at[-1], 1 / self._costs[-1]
            shown = self._settled + since * before
            self._settled += since * (before + 1 / cost) / 2
            # A cheaper reference says that more was used than anybody could know: where that ends
            # the budget, the candidate is not late by it.
            self._unforeseen += max(0.0, self._settled - max(self._amount, shown))
        self._at.append(at)
        self._costs.append(cost)
        between = burst.total_cpu_s * (1 - self._share) / self._share
        self._next = at + between * self._rng.uniform(0.5, 1.5)
