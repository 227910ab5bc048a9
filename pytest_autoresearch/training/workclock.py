"""Clock of an ``equal`` budget: CPU work, counted in tokens of the baseline.

What a program costs is a property of the program. Measured in one run it scatters by one to three
per cent, which is worth as much as many mutations. So a run gets a number of tokens that follows
from the cost known before it, and the measurement only checks that cost.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from statistics import median

from ..core.run import CostPlan
from .clock import RunningClock, check_batch, largest_batch

SHARE = 0.12
"""Share of a run's CPU seconds that the reference takes."""

_HICCUP = 1.1
"""Factor between the costs of two bursts above which the second is repeated."""

_EARLY = 2.0
"""By how much more the plan is tolerated at the beginning than at the end, as a factor."""

_FIRST_CHECK = 0.05
"""Fraction of the budget from which on the plan is checked."""


@dataclass(frozen=True)
class Burst:
    """CPU seconds per token of a few reference steps, and of the whole burst with its warm-up."""

    costs: tuple[float, ...]
    total_cpu_s: float


class EqualWorkClock(RunningClock):
    """A budget of the CPU work that the baseline needs for `amount` tokens.

    The candidate's CPU seconds, read from outside, are divided by what a token costs the reference
    on this machine at that time. The reference, the campaign's baseline code, runs in short bursts
    at secret random moments while the candidate is paused, so neither disturbs the other and being
    fast only while probed gains nothing. The cost is the median of a burst's steps; between two
    bursts the speed is the mean of theirs. Wall time does not count.

    While the work measured agrees with the plan, the budget is counted in tokens at the planned
    cost: equal programs see equally many, whatever the load of the machine. Once it deviates, the
    work measured counts. The deviation allowed is three times as large at first, when few bursts
    were measured.

    Args:
        amount: Tokens.
        cpu_seconds: Reads the candidate's CPU seconds.
        burst: Runs the reference for a moment, at the given progress.
        paused: Returns a context in which the candidate is paused.
        rng: Source of the moments.
        step: Tokens of the baseline's step; 0 while it is not known.
        plan: What the program is expected to cost.
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
        plan: CostPlan | None = None,
    ) -> None:
        super().__init__(amount, step)
        self._largest = largest_batch(amount, step)
        self._cpu_seconds = cpu_seconds
        self._burst = burst
        self._paused = paused
        self._rng = rng or random.SystemRandom()
        self._plan = plan or CostPlan()
        self._planned = True
        self._began = 0.0
        self._ended: float | None = None
        self._tokens = 0
        self._batches = 0
        self._first_cpu_s = 0.0
        self._forgiven = 0.0  # work of the first batch that is not counted
        self._at = 0.0  # candidate's CPU seconds at the last burst
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
        return seconds / self._costs[-1] / self._plan.bias

    def end(self) -> None:
        """Stop counting."""
        self._ended = self._cpu_seconds()

    def admit(self, tokens: int) -> bool:
        """Return whether a step that begins now lies mostly inside the budget."""
        check_batch(tokens, self._largest)
        if self._batches == 1:
            self._forgive_first_batch()
        work = self.work()
        if self._asked is not None:
            self._gaps.append(max(0.0, work - self._asked))
        self._asked = work
        self._check_plan(work)
        step = tokens * self._plan.cost if self._planned else self._usual_step()
        fits = self._fits(self.used(), step)
        if fits:
            self._tokens += tokens
            self._batches += 1
        else:
            self._take_burst()  # the last segment, too, is measured at both of its ends
        return fits

    def poll(self) -> None:
        """Take a burst if one is due."""
        if self._cpu_seconds() - self._began >= self._next:
            self._take_burst()

    def used(self) -> float:
        """Return the budget used: tokens at the planned cost, or the work measured."""
        if not self._planned:
            return self.work()
        # less than a step of the baseline is the scatter of starting a process: equal programs
        # must not differ by it
        charged = self._charged if self._charged > self._step else 0.0
        return charged + self._tokens * self._plan.cost

    def work(self) -> float:
        """Return the tokens that the baseline would have trained on with the CPU seconds used."""
        if not self._costs:
            return 0.0
        now = self._cpu_seconds() if self._ended is None else self._ended
        since = now - self._began - self._at
        measured = (self._settled + since / self._costs[-1]) / self._plan.bias
        return self._charged + max(0.0, measured - self._forgiven)

    def overdue_with(self, seconds: float) -> bool:
        """Return whether more work would be done than the budget, its slack and the tolerance."""
        allowed = self._amount + self.slack
        if self._planned:
            allowed += self._plan.tolerance * self._amount
        return self.work() + self.price(seconds) - self._unforeseen > allowed

    def facts(self) -> dict[str, float]:
        """Return bursts, their share of the CPU seconds, and the cost per token with its spread.

        ``cost`` is that of a token of the program in tokens of the baseline, as this run counted
        it; ``measured_cost`` is what its bursts say, before the correction by `CostPlan.bias`.
        """
        if not self._costs:
            return {}
        candidate = (self._ended or self._cpu_seconds()) - self._began
        middle = median(self._costs)
        work = self.work()
        measured = (work - self._charged) / self._tokens if self._tokens else 0.0
        return {
            "reference_bursts": float(len(self._costs)),
            "reference_cpu_s": self._reference_cpu,
            "reference_wall_s": self._reference_wall,
            "reference_share": self._reference_cpu / max(1e-9, self._reference_cpu + candidate),
            "reference_us_per_token": middle * 1e6,
            "reference_spread": median(abs(cost - middle) for cost in self._costs) / middle,
            "equivalent_tokens": work,
            "first_cpu_s": self._first_cpu_s,
            "planned": float(self._planned),
            "cost": self._plan.cost if self._planned else measured,
            "measured_cost": measured * self._plan.bias,
        }

    def _forgive_first_batch(self) -> None:
        """Count the first batch at its planned cost: it allocates, and costs several usual ones.

        What it takes above its allowance in CPU seconds is charged.
        """
        self._first_cpu_s = self._cpu_seconds() - self._began
        above = self.price(max(0.0, self._first_cpu_s - self._plan.first_cpu_s))
        work = self.work() - self._charged
        self._forgiven = max(0.0, work - above - self._tokens * self._plan.cost)

    def _check_plan(self, work: float) -> None:
        """Give the plan up if the work since the second batch deviates from it by too much."""
        fraction = self.used() / self._amount
        if not self._planned or fraction < _FIRST_CHECK:
            return
        deviation = math.log(max(work, 1e-9) / self.used())
        early = 1.0 + _EARLY * max(0.0, 1.0 - fraction)
        self._planned = abs(deviation) <= self._plan.tolerance * early
        if not self._planned:  # what it used within the tolerance does not make it overdue now
            self._unforeseen += max(0.0, work - self._amount)

    def _take_burst(self) -> None:
        began = time.monotonic()
        with self._paused():
            at = self._cpu_seconds() - self._began
            spent, cost = self._run_reference()
            if self._costs and cost > _HICCUP * self._costs[-1]:
                # the speed of the machine stays; a hiccup does not come twice
                again_s, cost = self._run_reference()
                spent += again_s
        self._reference_wall += time.monotonic() - began
        self._reference_cpu += spent
        shown = self.work()
        if self._costs:
            self._settled += (at - self._at) * (1 / self._costs[-1] + 1 / cost) / 2
        self._at = at
        self._costs.append(cost)
        # A cheaper burst reveals more use than `work` had shown: where that ends the budget, the
        # candidate is not overdue for it.
        self._unforeseen += max(0.0, self.work() - max(self._amount, shown))
        self._next = at + spent * (1 - SHARE) / SHARE * self._rng.uniform(0.5, 1.5)

    def _run_reference(self) -> tuple[float, float]:
        """Run a burst; return its CPU seconds, and its usual cost per token."""
        burst = self._burst(self.progress)
        return burst.total_cpu_s, median(burst.costs)
