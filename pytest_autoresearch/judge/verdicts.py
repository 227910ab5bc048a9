"""Noise model and verdict rules: is a gain real? Pure functions.

Every comparison is paired: a candidate is trained on seeds of the champion, and bounds are given in
units of sigma, the standard deviation of one paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from statistics import fmean, stdev
from typing import Literal

from ..core.experiment import Direction, Metric

Rule = Literal["sequential", "greedy", "threshold"]

Action = Literal["keep", "replicate", "discard"]

Bounds = tuple[float, ...]

# Bounds of the sequential test, one per stage (each stage adds a paired seed): keep above ACCEPT
# standard errors, discard below FUTILITY, replicate in between. Chosen with benchmarks/null.py and
# benchmarks/progress.py: of the bounds that keep at most 0.3 of 100 null mutations, those with the
# largest gain per training. High futility bounds pay: replicates of null mutations were the
# largest cost, and a discarded close call is not lost: later mutations build on it. Replicates also
# measure the noise.
ACCEPT: Bounds = (2.8, 2.3, 2.0, 1.8)

FUTILITY: Bounds = (1.4, 1.5, 1.7, 1.8)

WEALTH_RATE = 1.5
"""Alpha wealth per keep: the false positive rate of the first bound rises by this factor times the
share of attempts that were kept (alpha-investing: Foster and Stine 2008, JRSS B 70, 429). A
campaign of null mutations earns nothing. Chosen with benchmarks/progress.py."""

WEALTH_AFTER = 5
"""Attempts added to the denominator of that share, so that one early keep counts little."""

WEALTH_MOST = 0.1
"""Upper limit of the first bound's false positive rate."""

NEAR_MISS = 1.0
"""Standard errors above which a discard is retested or merged later; one null mutation in six gets
there."""

SIMPLER = -0.5
"""Bound, in standard errors after all replicates, above which a simpler program counts as equal and
is kept."""

SIMPLER_FUTILITY = -0.25
"""Bound, in standard errors, below which a simpler program is not replicated. It must be below 0,
where equal programs stand; lower values cost more trainings (benchmarks/progress.py)."""


@dataclass(frozen=True)
class Prior:
    """The noise assumed before anything is measured.

    The default is for val_bpb at the shipped CPU budget: nine mutations with five pairs each
    scattered by 0.0095 (benchmarks/known.py on a busy machine; part of it is the work clock's).

    Attributes:
        sigma: Standard deviation of one paired difference, in the metric's unit.
        freedom: Degrees of freedom that the prior counts for.
    """

    sigma: float = 0.009
    freedom: float = 8.0


CUDA_PRIOR = Prior(0.001)
"""For val_bpb after five minutes on one GPU: in published logs identical runs scatter by 0.0004
near the champion, and a change of the seed moved one by 0.0007."""


@dataclass(frozen=True)
class Noise:
    """The noise of comparisons with the champion.

    Attributes:
        sigma: Standard deviation of one paired difference, pooled.
        freedom: Degrees of freedom of `sigma`, the prior's included.
    """

    sigma: float
    freedom: float

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


def estimate_noise(groups: Iterable[Mapping[int, float]], prior: Prior) -> Noise:
    """Pool the variance of paired differences with the prior, by degrees of freedom.

    Args:
        groups: Seed to difference of two scores, one mapping per comparison of two versions.
        prior: Counts as `freedom` further degrees of freedom.
    """
    squares, freedom = prior.freedom * prior.sigma**2, prior.freedom
    for group in groups:
        values = [score for score in group.values() if math.isfinite(score)]
        if len(values) > 1:
            mean = fmean(values)
            squares += math.fsum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return Noise(math.sqrt(squares / freedom), freedom)


_NODES = 48
"""Intervals of the numerical integration between two bounds; even."""


def _simpson(i: int) -> float:
    return (1 if i in (0, _NODES) else 4 if i % 2 else 2) / 3


def _normal(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


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
        rule: ``sequential``: a sequential test that replicates close calls; ``greedy``: any gain;
            ``threshold``: 3 sigma on the first seed.
        direction: Which way is better.
        accept, futility: Bounds of the sequential test in standard errors, one per stage.
        wealth_rate: Alpha wealth that each keep adds; see `WEALTH_RATE`.
    """

    rule: Rule = "sequential"
    direction: Direction = "min"
    accept: Bounds = ACCEPT
    futility: Bounds = FUTILITY
    wealth_rate: float = WEALTH_RATE

    def decide(
        self,
        candidate: Mapping[int, float],
        champion: Mapping[int, float],
        noise: Noise,
        attempt: int = 0,
        simpler: bool = False,
        keeps: int = 0,
    ) -> Decision:
        """Compare on the seeds that both were trained on.

        Args:
            candidate: Seed to score, of every replicate so far; at least one.
            champion: Seed to score, of the champion.
            noise: Near the champion.
            attempt: Number of the attempt; spreads replicates over the champion's seeds.
            simpler: Whether the candidate is the simpler program, which need only be equal after
                all replicates.
            keeps: Mutations kept for their gain so far, which loosen the bounds.

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
        accept, futility = self._bounds(attempt, keeps)
        last = n >= len(accept)
        margin = noise.bar(accept[min(n, len(accept)) - 1]) * error
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
            self._explain(n, reference, margin, noise, keeps),
            gain,
            sigmas,
            seed,
            seed is not None and seed not in champion,
            merely_equal and action == "keep",
        )

    def chance(self, gain: float, noise: Noise, attempt: int = 0, keeps: int = 0) -> float:
        """Return the probability that a mutation is kept, all replicates included.

        The sum of paired gains is a normal random walk between the bounds, integrated stage by
        stage with Simpson's rule (Armitage, McPherson and Rowe 1969).

        Args:
            gain: True gain of the mutation, in the metric's unit.
            noise: Taken as the true noise; later estimates of it are ignored.
            attempt: Number of the attempt.
            keeps: Mutations kept for their gain so far.
        """
        accept, futility = self._bounds(attempt, keeps)
        drift, kept = gain / noise.sigma, 0.0
        walk = [(0.0, 1.0)]  # sum of the paired gains so far, in sigma, and its weight
        for n, (above, below) in enumerate(zip(accept, futility, strict=True), 1):
            top, low = noise.bar(above) * math.sqrt(n), below * math.sqrt(n)
            kept += math.fsum(
                w * math.erfc((top - at - drift) / math.sqrt(2)) / 2 for at, w in walk
            )
            if n == len(accept) or low >= top:
                break
            step = (top - low) / _NODES
            nodes = [(low + i * step, _simpson(i) * step) for i in range(_NODES + 1)]
            walk = [
                (x, width * math.fsum(w * _normal(x - at - drift) for at, w in walk))
                for x, width in nodes
            ]
        return kept

    def detectable_gain(self, noise: Noise, chance: float = 0.5) -> float:
        """Return the smallest true gain that is kept with probability `chance`."""
        low, high = 0.0, 16 * noise.sigma
        while high - low > 1e-3 * noise.sigma:
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(middle, noise) > chance else (middle, high)
        return high

    def _bounds(self, attempt: int, keeps: int) -> tuple[Bounds, Bounds]:
        """Return the accept and futility bounds, stage by stage, in standard errors."""
        if self.rule == "greedy":
            return (0.0,), (0.0,)
        if self.rule == "threshold":
            return (3.0,), (3.0,)
        wealth = self.wealth_rate * keeps / (max(attempt, 0) + WEALTH_AFTER)
        return loosen(self.accept, self.futility, wealth)

    def _next_seed(
        self, candidate: Mapping[int, float], champion: Mapping[int, float], attempt: int
    ) -> int:
        unused = sorted(seed for seed in champion if seed not in candidate)
        return unused[attempt % len(unused)] if unused else max((*candidate, *champion)) + 1

    def _explain(self, n: int, reference: float, margin: float, noise: Noise, keeps: int) -> str:
        champion = f"champion {reference:.6f} on the same {'1 seed' if n == 1 else f'{n} seeds'}"
        if self.rule == "greedy":
            return f"{champion}; any gain counts"
        if margin < 0:
            return (
                f"{champion}; the code is simpler, so {-margin:.6f} (sigma {noise.sigma:.6f}) "
                "counts as equal"
            )
        earlier = f", {keeps} kept before" if keeps and self.rule == "sequential" else ""
        return (
            f"{champion}, and a margin of {margin:.6f} for noise (sigma {noise.sigma:.6f}, "
            f"{noise.freedom:.0f} degrees of freedom{earlier})"
        )


@lru_cache(maxsize=4096)
def loosen(accept: Bounds, futility: Bounds, wealth: float) -> tuple[Bounds, Bounds]:
    """Lower the accept bounds of a sequential test by the alpha wealth of earlier keeps.

    Args:
        accept: Accept bounds, stage by stage, in standard errors.
        futility: Futility bounds.
        wealth: Added to the false positive rate of the first bound, up to `WEALTH_MOST`.
    """
    from scipy.special import ndtr, ndtri

    level = float(ndtr(-accept[0]))
    allowed = max(level, min(WEALTH_MOST, level + wealth))
    by = round(accept[0] + float(ndtri(allowed)), 2)
    lower = tuple(bound - by for bound in accept)
    return lower, tuple(min(f, a) for f, a in zip(futility, lower, strict=True))


def earns_wealth(gain: float, score: float, bar: float, direction: Direction) -> bool:
    """Return whether a keep was kept for its gain, not for being equal and simpler."""
    return Metric(direction=direction).gain(score, bar) < gain


def prior_from(scores: Iterable[float]) -> Prior:
    """Return a prior for a metric of unknown scale, from the calibration's scores.

    The difference of scores on two seeds has sqrt(2) times the deviation of one score, which bounds
    the scatter of a paired difference.
    """
    values = list(scores)
    spread = stdev(values) if len(values) > 1 else 0.0
    return Prior(max(math.sqrt(2) * spread, 1e-9 * abs(fmean(values)), 1e-12))


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
    line = (
        f"noise: sigma {noise.sigma:.4g} of a paired difference ({noise.freedom:.0f} degrees of "
        f"freedom); a gain of {judge.detectable_gain(noise):.2g} {metric} is kept half of the "
        f"time, one of {judge.detectable_gain(noise, 0.9):.2g} nine times in ten"
    )
    if not attempts:
        return line
    false = attempts * judge.chance(0, noise)
    return f"{line}; of {attempts} mutations without effect at most {false:.2g} are kept"


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
