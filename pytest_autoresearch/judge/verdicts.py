"""Whether a gain is real: the noise model and the verdict rules. Pure functions, no I/O.

Every comparison is paired: a candidate is trained on seeds that the champion was trained on, and
the unit of all bars is sigma, the standard deviation of one paired difference.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

from ..core.experiment import Direction, Metric

Rule = Literal["sequential", "greedy", "threshold"]

Action = Literal["keep", "replicate", "discard"]

# The sequential test of `sequential`, stage by stage (one more paired seed each): keep when the mean
# gain exceeds KEEP standard errors, give up when it falls below HOPE, train one more seed between.
# Chosen on benchmarks/null.py and benchmarks/progress.py: of the bounds that keep at most 0.3 of
# 100 null mutations, among those that gain most per training. A high HOPE is what pays: replicates
# of mutations that do nothing were the largest cost of a lower one, and a close call is not lost,
# since the next mutations build on it. Replicates are also what noise is learnt from.
ACCEPT = (2.8, 2.3, 2.0, 1.8)

FUTILITY = (1.4, 1.5, 1.7, 1.8)

WEALTH_RATE = 1.5
"""How much a session's keeps loosen its bounds: the chance that luck passes the first one rises by
this times the share of attempts that were kept. A campaign of mutations that do nothing earns nothing,
and one that keeps finding gains may risk a false keep among many (alpha-investing: Foster and Stine
2008, JRSS B 70, 429). Chosen on benchmarks/progress.py."""

WEALTH_AFTER = 5
"""Attempts that are added before the share is taken, so that an early keep is not half of them."""

WEALTH_MOST = 0.1
"""Chance of the first bound that is never exceeded."""

NEAR_MISS = 1.0
"""Standard errors above which a discard is worth a training of its own later; a mutation that does
nothing gets there one time in six."""

SIMPLER = -0.5
"""Standard errors by which a simpler mutation may fall short after all replicates and still be
kept: equal for all one can tell, and there is less of it."""

SIMPLER_FUTILITY = -0.25
"""Standard errors below which a simpler mutation is not trained again. What is exactly
equal goes on; the lower, the more is spent on what is merely shorter (benchmarks/progress.py)."""


@dataclass(frozen=True)
class Prior:
    """What is believed of the noise before anything is measured.

    The default is for val_bpb at the shipped CPU budget: nine mutations, five pairs each, scattered
    by 0.0095 (benchmarks/known.py, on a busy machine; part of it is the clock of counted work).

    Attributes:
        sigma: Standard deviation of one paired difference, in the metric's unit.
        freedom: How many degrees of freedom that belief is worth.
    """

    sigma: float = 0.009
    freedom: float = 8.0


CUDA_PRIOR = Prior(0.001)
"""For val_bpb after five minutes of one GPU: identical runs scatter by 0.0004 near the champion in
published logs, and a change of the seed moved one by 0.0007."""


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
        """Return the t-quantile, in sigma, that is as unlikely as `normal_sigmas` of a normal."""
        return t_quantile(normal_sigmas, round(self.freedom, 1))


@lru_cache(maxsize=4096)
def t_quantile(normal_sigmas: float, freedom: float) -> float:
    """Return t with P(T > t) = P(Z > normal_sigmas), T of Student's law.

    The expansion of Hill (1970, CACM algorithm 396) inverted is exact enough only in the centre;
    the tail that decides keeps is solved numerically with scipy.
    """
    from scipy.special import ndtr, stdtrit

    return -float(stdtrit(freedom, ndtr(-normal_sigmas)))


def estimate_noise(groups: Iterable[Mapping[int, float]], prior: Prior) -> Noise:
    """Pool the variance of paired differences with the prior.

    Args:
        groups: Seed to difference of two scores, one mapping per comparison of two versions.
        prior: Weighs as `freedom` further degrees of freedom.

    Returns:
        The pooled estimate: (freedom * sigma^2 + sum of squares) / all degrees of freedom.
    """
    squares, freedom = prior.freedom * prior.sigma**2, prior.freedom
    for group in groups:
        values = [score for score in group.values() if math.isfinite(score)]
        if len(values) > 1:
            mean = math.fsum(values) / len(values)
            squares += math.fsum((value - mean) ** 2 for value in values)
            freedom += len(values) - 1
    return Noise(math.sqrt(squares / freedom), freedom)


_NODES = 48
"""Intervals of the integral over what lies between two bounds; even."""


def _simpson(i: int) -> float:
    return (1 if i in (0, _NODES) else 4 if i % 2 else 2) / 3


def _normal(x: float) -> float:
    return math.exp(-x * x / 2) / math.sqrt(2 * math.pi)


@dataclass(frozen=True)
class Decision:
    """What to do with a candidate now.

    Attributes:
        action: Keep it, train it on one more seed, or discard it.
        bar: The mean of all its scores beats this number exactly when `action` is ``keep``.
        explanation: Why the bar stands where it stands.
        gain: Mean paired gain over the champion, positive is better, in the metric's unit.
        gain_sigma: The same in standard errors of the mean difference.
        seed: Seed of the next replicate; None unless `action` is ``replicate``.
        remeasure_champion: The champion lacks that seed and must be trained on it too.
        simplification: Kept for being equal and simpler, not for a gain.
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
            ``threshold``: 3 sigma at once.
        direction: Which way is better.
        keep, hope: The sequential test's bounds, stage by stage, in standard errors; see `KEEP`.
        credit: What keeps loosen them by; see `EARNED`.
    """

    rule: Rule = "sequential"
    direction: Direction = "min"
    keep: tuple[float, ...] = ACCEPT
    hope: tuple[float, ...] = FUTILITY
    credit: float = WEALTH_RATE

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
            attempt: Number of the attempt; spreads replicates over the champion's seeds, and `keeps` are
                a share of it.
            simpler: The candidate is the simpler program, so that being equal is enough, once it
                is trained as often as anything is.
            keeps: Mutations kept for their gain so far; see `EARNED` and `earned`.

        Raises:
            ValueError: A score is not finite, or no seed is shared.
        """
        if not all(math.isfinite(s) for s in (*candidate.values(), *champion.values())):
            raise ValueError("a score that is not finite is a crash, never a comparison")
        shared = [seed for seed in candidate if seed in champion]
        if not shared:
            raise ValueError("candidate and champion share no seed")
        n = len(shared)
        metric = Metric(direction=self.direction)
        mean = math.fsum(candidate.values()) / len(candidate)
        paired = math.fsum(candidate[seed] for seed in shared) / n
        reference = math.fsum(champion[seed] for seed in shared) / n
        gain = metric.gain(paired, reference)
        error = noise.sigma / math.sqrt(n)
        keep, hope = self._bounds(attempt, keeps)
        last = n >= len(keep)
        margin = noise.bar(keep[min(n, len(keep)) - 1]) * error
        equal_is_enough = simpler and self.rule == "sequential"
        if merely_equal := equal_is_enough and last and gain <= margin:
            margin = SIMPLER * error
        bar = reference - margin if self.direction == "min" else reference + margin
        bar += mean - paired  # seeds that the champion lacks weigh neither for nor against it
        sigmas = gain / error if error else math.copysign(math.inf, gain)
        action: Action = "keep" if metric.gain(mean, bar) > 0 else "discard"
        seed = None
        may_replicate = action == "discard" and self.rule == "sequential" and not last
        if may_replicate and sigmas > (SIMPLER_FUTILITY if equal_is_enough else hope[n - 1]):
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

        The mean over pairs is followed from stage to stage as a normal random walk between the
        bounds (Armitage, McPherson and Rowe 1969), integrated by Simpson's rule.

        Args:
            gain: What the mutation truly gains, in the metric's unit.
            noise: Taken for the true noise; what is learnt of it on the way is left out.
            attempt: Number of the attempt.
            keeps: Mutations kept for their gain so far.
        """
        keep, hope = self._bounds(attempt, keeps)
        drift, kept = gain / noise.sigma, 0.0
        walk = [(0.0, 1.0)]  # sum of the paired gains so far, in sigma, and its weight
        for n, (above, below) in enumerate(zip(keep, hope, strict=True), 1):
            top, low = noise.bar(above) * math.sqrt(n), below * math.sqrt(n)
            kept += math.fsum(
                w * math.erfc((top - at - drift) / math.sqrt(2)) / 2 for at, w in walk
            )
            if n == len(keep) or low >= top:
                break
            step = (top - low) / _NODES
            nodes = [(low + i * step, _simpson(i) * step) for i in range(_NODES + 1)]
            walk = [
                (x, width * math.fsum(w * _normal(x - at - drift) for at, w in walk))
                for x, width in nodes
            ]
        return kept

    def told_apart(self, noise: Noise, chance: float = 0.5) -> float:
        """Return the smallest true gain that is kept with probability `chance`."""
        low, high = 0.0, 16 * noise.sigma
        while high - low > 1e-3 * noise.sigma:
            middle = (low + high) / 2
            low, high = (low, middle) if self.chance(middle, noise) > chance else (middle, high)
        return high

    def _bounds(self, attempt: int, keeps: int) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Where to keep and where to give up, stage by stage, in standard errors."""
        if self.rule == "greedy":
            return (0.0,), (0.0,)
        if self.rule == "threshold":
            return (3.0,), (3.0,)
        return eased(self.keep, self.hope, self.credit * keeps / (max(attempt, 0) + WEALTH_AFTER))

    def _next_seed(
        self, candidate: Mapping[int, float], champion: Mapping[int, float], attempt: int
    ) -> int:
        unused = sorted(seed for seed in champion if seed not in candidate)
        return unused[attempt % len(unused)] if unused else max((*candidate, *champion)) + 1

    def _explain(self, n: int, reference: float, margin: float, noise: Noise, keeps: int) -> str:
        seeds = "1 seed" if n == 1 else f"{n} seeds"
        if self.rule == "greedy":
            return f"champion {reference:.6f} on the same {seeds}; any gain counts"
        if margin < 0:
            return (
                f"champion {reference:.6f} on the same {seeds}; the code is simpler, so "
                f"{-margin:.6f} (sigma {noise.sigma:.6f}) counts as equal"
            )
        earlier = f", {keeps} kept before" if keeps and self.rule == "sequential" else ""
        return (
            f"champion {reference:.6f} on the same {seeds}, less {margin:.6f} that luck explains "
            f"(sigma {noise.sigma:.6f}, {noise.freedom:.0f} degrees of freedom{earlier})"
        )


@lru_cache(maxsize=4096)
def eased(
    keep: tuple[float, ...], hope: tuple[float, ...], risk: float
) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Lower the upper bounds of a sequential test by what earlier keeps have earned.

    Args:
        keep: Bounds for keeping, stage by stage, in standard errors.
        hope: Bounds for giving up.
        risk: Added to the chance that luck passes the first bound, up to `EARNED_MOST`.
    """
    from scipy.special import ndtr, ndtri

    level = float(ndtr(-keep[0]))
    risked = max(level, min(WEALTH_MOST, level + risk))
    by = round(keep[0] + float(ndtri(risked)), 2)
    lower = tuple(bound - by for bound in keep)
    return lower, tuple(min(h, k) for h, k in zip(hope, lower, strict=True))


def earns_wealth(gain: float, score: float, bar: float, direction: Direction) -> bool:
    """Whether a mutation was kept for its gain, and not for being equal and simpler.

    Args:
        gain: Its mean paired gain over the champion, as in `Decision`.
        score: Mean of its scores.
        bar: What it had to beat.
        direction: Which way is better.
    """
    return Metric(direction=direction).gain(score, bar) < gain


def prior_from(scores: Iterable[float]) -> Prior:
    """Return a prior for a metric of unknown scale, from the calibration's scores.

    Two scores of unlike seeds differ by sqrt(2) of one score's deviation, which bounds what a
    paired difference scatters by.
    """
    values = list(scores)
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / max(1, len(values) - 1))
    return Prior(max(math.sqrt(2) * spread, 1e-9 * abs(mean), 1e-12))


def show(values: Iterable[float]) -> str:
    """Return ``0.971234 ± 0.000400 (n=4)``: mean, standard error, replicates."""
    values = list(values)
    mean = math.fsum(values) / len(values)
    if len(values) == 1:
        return f"{mean:.6f} (n=1)"
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    return f"{mean:.6f} ± {spread / math.sqrt(len(values)):.6f} (n={len(values)})"


def preview(noise: Noise, metric: str, judge: Judge | None = None, attempts: int = 0) -> str:
    """Say what a campaign with this noise can tell apart.

    Args:
        noise: As it is known now.
        metric: Its name.
        judge: The rule; the default one if None.
        attempts: Mutations that are going to be tried; 0: not known.
    """
    judge = judge or Judge()
    line = (
        f"noise: sigma {noise.sigma:.4g} of a paired difference ({noise.freedom:.0f} degrees of "
        f"freedom); a gain of {judge.told_apart(noise):.2g} {metric} is kept half of the time, one "
        f"of {judge.told_apart(noise, 0.9):.2g} nine times in ten"
    )
    if not attempts:
        return line
    false = attempts * judge.chance(0, noise)
    return f"{line}; of {attempts} mutations that do nothing at most {false:.2g} are kept"


def too_noisy(scores: Iterable[float], share: float) -> str:
    """Say why an experiment is too noisy to be judged, or ''.

    Args:
        scores: Of the same code on several seeds.
        share: Largest accepted standard deviation, as a share of the mean.
    """
    values = list(scores)
    if len(values) < 2:
        return ""
    mean = math.fsum(values) / len(values)
    spread = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
    if spread <= share * abs(mean):
        return ""
    return (
        f"too noisy: {len(values)} runs of the same code scatter by {spread:.6f} around "
        f"{mean:.6f}, more than {share:.1%} of it; give a longer budget or one of counted work "
        "(600ktok, equal:600ktok), run fewer processes, or raise --autoresearch-max-noise"
    )
