"""Noise model and verdict rules: is a gain real? Pure functions.

Every comparison is paired: a candidate is trained on seeds of the champion, and bounds are given in
standard errors of the mean paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise
from statistics import fmean, stdev, variance
from typing import Literal

from ..core.experiment import Direction, Metric

Rule = Literal["sequential", "greedy", "threshold"]

Action = Literal["keep", "replicate", "discard"]

Bounds = tuple[float, ...]

# Bounds of the sequential test after one and two pairs: keep above ACCEPT standard errors, discard
# below FUTILITY, train one more seed in between. Chosen with benchmarks/null.py and
# benchmarks/progress.py (docs/judge-evidence.md).
ACCEPT: Bounds = (3.0, 2.6)

FUTILITY: Bounds = (1.8, 2.6)

NEAR_MISS = 1.0
"""Standard errors above which a discard is retested or merged later; one null mutation in six gets
there."""

NO_OP = 0.25
"""Standard errors below which a gain is no reason to build on a discard."""

SIMPLER = -0.5
"""Bound, in standard errors after all pairs, above which a simpler program counts as equal and is
kept."""

SIMPLER_FUTILITY = -0.25
"""Bound, in standard errors, below which a simpler program gets no second pair. It must be below 0,
where equal programs stand; lower values cost more trainings (benchmarks/progress.py)."""

FALSE_KEEPS = {6: (0.003, 0.003), 20: (0.008, 0.008), 100: (0.12, 0.12)}
"""Attempts of a session in which no mutation has an effect, to the mean number of keeps and the
share of such sessions that keep something; measured by benchmarks/null.py."""


@dataclass(frozen=True)
class Prior:
    """The noise assumed before anything is measured; a few measured pairs outweigh it.

    The default is for val_bpb at the shipped CPU budget (benchmarks/noise.py).

    Attributes:
        sigma: Standard deviation of one paired difference, in the metric's unit.
        freedom: Degrees of freedom that the prior counts for.
    """

    sigma: float = 0.005
    freedom: float = 2.0


CUDA_PRIOR = Prior(0.001)
"""For val_bpb after five minutes on one GPU: in published logs identical runs scatter by 0.0004
near the champion, and a change of the seed moved one by 0.0007."""


@dataclass(frozen=True)
class Noise:
    """The noise of comparisons with the champion.

    Attributes:
        sigma: Standard deviation of one paired difference.
        freedom: Degrees of freedom of `sigma`, the prior's included.
        deterministic: Every score repeats exactly; `sigma` is then the smallest gain that counts.
    """

    sigma: float
    freedom: float
    deterministic: bool = False

    def bar(self, normal_sigmas: float) -> float:
        """Return the t-quantile, in sigma, of the tail probability of `normal_sigmas`."""
        return t_quantile(normal_sigmas, round(self.freedom, 1))


@lru_cache(maxsize=4096)
def t_quantile(normal_sigmas: float, freedom: float) -> float:
    """Return t with P(T > t) = P(Z > normal_sigmas), where T has Student's distribution.

    Solved numerically by scipy: series expansions (Hill 1970, CACM algorithm 396) are too inexact
    in the tail that decides keeps.
    """
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(freedom, ndtr(-normal_sigmas)))


def estimate_noise(repeats: Iterable[float], prior: Prior, floor: float = 0.0) -> Noise:
    """Pool the prior with the differences of runs of the same code on the same seed.

    Pairs of mutations do not count: a second pair is trained where the first was lucky, so their
    scatter is biased.

    Args:
        repeats: Differences of such pairs, whose true mean is zero.
        prior: Counts as `freedom` further pairs.
        floor: Smallest sigma: the resolution of the metric.
    """
    values = list(repeats)
    freedom = prior.freedom + len(values)
    squares = prior.freedom * prior.sigma**2 + math.fsum(value * value for value in values)
    return Noise(max(math.sqrt(squares / freedom), floor), freedom)


def resolution(scores: Iterable[float]) -> float:
    """Return the step of a coarse metric, such as one test case of 200, or 0.

    A metric is taken as coarse if all differences of its scores are multiples of the smallest one,
    and there are several, or the scores have at most four decimals.
    """
    values = sorted(set(scores))
    steps = [after - before for before, after in pairwise(values)]
    if not steps or (len(set(steps)) < 2 and any(round(v, 4) != v for v in values)):
        return 0.0
    least = min(steps)
    multiples = (abs(step / least - round(step / least)) < 1e-6 * step / least for step in steps)
    return least if all(multiples) else 0.0


@dataclass(frozen=True)
class Decision:
    """The next action on a candidate.

    Attributes:
        action: Keep it, train it on one more seed, or discard it.
        bar: The candidate's mean score beats this number exactly when `action` is ``keep``.
        explanation: How `bar` was computed.
        gain: Mean paired gain over the champion, positive is better, in the metric's unit.
        gain_sigma: `gain` in standard errors of the mean difference.
        seed: Seed of the next replicate; None unless `action` is ``replicate``.
        remeasure_champion: The champion must be trained on that seed, too.
        simplification: Kept because it is equal and simpler, not for a gain.
    """

    action: Action
    bar: float
    explanation: str
    gain: float
    gain_sigma: float
    seed: int | None = None
    remeasure_champion: bool = False
    simplification: bool = False


@dataclass(frozen=True)
class Judge:
    """The verdict rule of a campaign.

    Attributes:
        rule: ``sequential``: a test in two stages; ``greedy``: any gain; ``threshold``: 3 sigma
            on the first seed.
        direction: Which way is better.
        accept, futility: Bounds of the sequential test in standard errors, one per stage.
    """

    rule: Rule = "sequential"
    direction: Direction = "min"
    accept: Bounds = ACCEPT
    futility: Bounds = FUTILITY

    def decide(
        self,
        candidate: Mapping[int, float],
        champion: Mapping[int, float],
        noise: Noise,
        attempt: int = 0,
        simpler: bool = False,
    ) -> Decision:
        """Compare on the seeds that both were trained on.

        Args:
            candidate: Seed to score, of every replicate so far; at least one.
            champion: Seed to score, of the champion.
            noise: Near the champion.
            attempt: Number of the attempt; spreads replicates over the champion's seeds.
            simpler: Whether the candidate is the simpler program, which need only be equal after
                all pairs.

        Raises:
            ValueError: A score is not finite, or no seed is shared.
        """
        if not all(math.isfinite(s) for s in (*candidate.values(), *champion.values())):
            raise ValueError("a score that is not finite cannot be compared; treat it as a crash")
        shared = [seed for seed in candidate if seed in champion]
        if not shared:
            raise ValueError("candidate and champion share no seed")
        n = len(shared)
        metric = Metric(direction=self.direction)
        mean = fmean(candidate.values())
        paired = fmean(candidate[seed] for seed in shared)
        reference = fmean(champion[seed] for seed in shared)
        gain = metric.gain(paired, reference)
        error = noise.sigma / math.sqrt(n)
        accept, futility = self._bounds(noise)
        last = n >= len(accept)
        margin = accept[min(n, len(accept)) - 1] * error
        equal_is_enough = simpler and self.rule == "sequential"
        if merely_equal := equal_is_enough and last and gain <= margin:
            margin = SIMPLER * error
        bar = reference - margin if self.direction == "min" else reference + margin
        bar += mean - paired  # seeds that the champion lacks must not change the verdict
        sigmas = gain / error if error else math.copysign(math.inf, gain)
        action: Action = "keep" if metric.gain(mean, bar) > 0 else "discard"
        seed = None
        may_replicate = action == "discard" and self.rule == "sequential" and not last
        if may_replicate and sigmas > (SIMPLER_FUTILITY if equal_is_enough else futility[n - 1]):
            action = "replicate"
            seed = self._next_seed(candidate, champion, attempt)
        return Decision(
            action,
            bar,
            self._explain(n, reference, margin, noise),
            gain,
            sigmas,
            seed,
            seed is not None and seed not in champion,
            merely_equal and action == "keep",
        )

    def chance(self, gain: float, noise: Noise) -> float:
        """Return the probability that a mutation is kept, the second pair included.

        Args:
            gain: True gain of the mutation, in the metric's unit.
            noise: Taken as the true noise.
        """
        accept, futility = self._bounds(noise)
        drift, low = gain / noise.sigma, futility[0]
        kept = _above(accept[0] - drift)
        if len(accept) > 1 and accept[0] > low:
            step = (accept[0] - low) / 200
            middles = [low + (i + 0.5) * step for i in range(200)]
            kept += (
                step
                * math.fsum(
                    math.exp(-((x - drift) ** 2) / 2) * _above(math.sqrt(2) * accept[1] - x - drift)
                    for x in middles
                )
                / math.sqrt(2 * math.pi)
            )
        return kept

    def detectable_gain(self, noise: Noise, chance: float = 0.5) -> float:
        """Return the smallest true gain that is kept with probability `chance`."""
        low, high = 0.0, 16 * noise.sigma
        while high - low > 1e-3 * noise.sigma:
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(middle, noise) > chance else (middle, high)
        return high

    def _bounds(self, noise: Noise) -> tuple[Bounds, Bounds]:
        """Return the accept and futility bounds, stage by stage, in standard errors."""
        if self.rule == "greedy":
            return (0.0,), (0.0,)
        if noise.deterministic:
            return (1.0,), (1.0,)
        if self.rule == "threshold":
            return (noise.bar(3.0),), (3.0,)
        return tuple(map(noise.bar, self.accept)), self.futility

    def _next_seed(
        self, candidate: Mapping[int, float], champion: Mapping[int, float], attempt: int
    ) -> int:
        unused = sorted(seed for seed in champion if seed not in candidate)
        return unused[attempt % len(unused)] if unused else max((*candidate, *champion)) + 1

    def _explain(self, n: int, reference: float, margin: float, noise: Noise) -> str:
        champion = f"champion {reference:.6f} on the same {'1 seed' if n == 1 else f'{n} seeds'}"
        if self.rule == "greedy":
            return f"{champion}; any gain counts"
        if margin < 0:
            return (
                f"{champion}; the code is simpler, so {-margin:.6f} (sigma {noise.sigma:.6f}) "
                "counts as equal"
            )
        if noise.deterministic:
            return f"{champion}; scores repeat exactly, so any gain above {margin:.2g} counts"
        return (
            f"{champion}, and a margin of {margin:.6f} for noise (sigma {noise.sigma:.6f}, "
            f"{noise.freedom:.0f} degrees of freedom)"
        )


def _above(x: float) -> float:
    """Return the probability that a standard normal variable exceeds `x`."""
    return math.erfc(x / math.sqrt(2)) / 2


def prior_from(champions: Iterable[Collection[float]]) -> Prior:
    """Return a prior from the scatter of each champion's scores over its seeds.

    The difference of scores on two seeds has sqrt(2) times the deviation of one score, which bounds
    the scatter of a paired difference.
    """
    scattered = [scores for scores in champions if len(scores) > 1]
    freedom = sum(len(scores) - 1 for scores in scattered)
    squares = math.fsum((len(scores) - 1) * variance(scores) for scores in scattered)
    return Prior(math.sqrt(2 * squares / max(freedom, 1)), max(freedom, 1))


def show(values: Iterable[float]) -> str:
    """Format as ``0.971234 ± 0.000400 (n=4)``: mean, standard error, replicates."""
    values = list(values)
    if len(values) == 1:
        return f"{values[0]:.6f} (n=1)"
    error = stdev(values) / math.sqrt(len(values))
    return f"{fmean(values):.6f} ± {error:.6f} (n={len(values)})"


def preview(noise: Noise, metric: str, judge: Judge | None = None, attempts: int = 0) -> str:
    """Describe which gains a campaign with this noise can detect.

    Args:
        noise: As known now.
        metric: Its name.
        judge: None for the default.
        attempts: Planned number of mutations; 0 if unknown.
    """
    judge = judge or Judge()
    if noise.deterministic:
        return f"noise: none, scores repeat exactly; gains above {noise.sigma:.2g} {metric} count"
    line = (
        f"noise: sigma {noise.sigma:.4g} of a paired difference ({noise.freedom:.0f} degrees of "
        f"freedom); a gain of {judge.detectable_gain(noise):.2g} {metric} is kept half of the "
        f"time, one of {judge.detectable_gain(noise, 0.9):.2g} nine times in ten"
    )
    if not attempts or judge.rule != "sequential":
        return line
    mean, share = false_keeps(attempts)
    return (
        f"{line}; of {attempts} mutations without effect {mean:.2g} are kept "
        f"({share:.1%} of such sessions keep one)"
    )


def false_keeps(attempts: int) -> tuple[float, float]:
    """Return the false keeps of a session without real gains, and the chance of at least one.

    Interpolated in `FALSE_KEEPS`.
    """
    points = [(0, (0.0, 0.0)), *sorted(FALSE_KEEPS.items())]
    spans = list(pairwise(points))
    (lower, low), (upper, high) = next((s for s in spans if attempts <= s[1][0]), spans[-1])
    place = (attempts - lower) / (upper - lower)
    mean, share = (x + place * (y - x) for x, y in zip(low, high, strict=True))
    return mean, min(share, 1.0)


def too_noisy(scores: Iterable[float], share: float) -> str:
    """Return why scores of the same code deviate by more than `share` of their mean, or ''."""
    values = list(scores)
    if len(values) < 2 or (spread := stdev(values)) <= share * abs(fmean(values)):
        return ""
    return (
        f"too noisy: {len(values)} runs of the same code scatter by {spread:.6f} around "
        f"{fmean(values):.6f}, more than {share:.1%} of it; give a longer budget or one of counted "
        "work (600ktok, equal:600ktok), run fewer processes, or raise --autoresearch-max-noise"
    )
