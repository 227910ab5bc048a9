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

from .experiment import Direction, Metric

Rule = Literal["confirm", "greedy", "strict"]
Action = Literal["keep", "replicate", "discard"]

# The sequential test of `confirm`, stage by stage (one more paired seed each): keep when the mean
# gain exceeds KEEP standard errors, give up when it falls below HOPE, train one more seed between.
# Chosen on benchmarks/null.py and benchmarks/progress.py: of the bounds that keep at most 0.3 of
# 100 null mutations, among those that gain most per training. A high HOPE is what pays: replicates
# of mutations that do nothing were the largest cost of a lower one.
KEEP = (2.8, 2.3, 2.0, 1.8)
HOPE = (1.2, 1.5, 1.7, 1.8)


SIMPLER = -0.5
"""Standard errors by which a simpler mutation may fall short after all replicates and still be
kept: equal for all one can tell, and there is less of it."""

SIMPLER_HOPE = -1.0
"""Standard errors below which a simpler mutation is not trained again."""


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


@dataclass(frozen=True)
class Decision:
    """What to do with a candidate now.

    Attributes:
        action: Keep it, train it on one more seed, or discard it.
        bar: Its mean beats this number exactly when `action` is ``keep``.
        explanation: Why the bar stands where it stands.
        gain: Mean paired gain over the champion, positive is better, in the metric's unit.
        gain_sigma: The same in standard errors of the mean difference.
        seed: Seed of the next replicate; None unless `action` is ``replicate``.
        remeasure_champion: The champion lacks that seed and must be trained on it too.
    """

    action: Action
    bar: float
    explanation: str
    gain: float
    gain_sigma: float
    seed: int | None = None
    remeasure_champion: bool = False


@dataclass(frozen=True)
class Judge:
    """The verdict rule of a campaign.

    Attributes:
        rule: ``confirm``: a sequential test that replicates close calls; ``greedy``: any gain;
            ``strict``: 3 sigma at once.
        direction: Which way is better.
        keep, hope: The sequential test's bounds, stage by stage, in standard errors; see `KEEP`.
    """

    rule: Rule = "confirm"
    direction: Direction = "min"
    keep: tuple[float, ...] = KEEP
    hope: tuple[float, ...] = HOPE

    def decide(
        self,
        candidate: Mapping[int, float],
        champion: Mapping[int, float],
        noise: Noise,
        slot: int = 0,
        simpler: bool = False,
    ) -> Decision:
        """Compare on the seeds that both were trained on.

        Args:
            candidate: Seed to score, of every replicate so far; at least one.
            champion: Seed to score, of the champion.
            noise: Near the champion.
            slot: Number of the slot; spreads replicates over the champion's seeds.
            simpler: The candidate is the simpler program, so that being equal is enough, once it
                is trained as often as anything is.

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
        reference = math.fsum(champion[seed] for seed in shared) / n
        gain = metric.gain(math.fsum(candidate[seed] for seed in shared) / n, reference)
        error = noise.sigma / math.sqrt(n)
        equal_is_enough = simpler and self.rule == "confirm"
        last = n >= len(self.keep)
        margin = (SIMPLER if equal_is_enough and last else self._margin(n, noise)) * error
        bar = reference - margin if self.direction == "min" else reference + margin
        sigmas = gain / error if error else math.copysign(math.inf, gain)
        action: Action = "keep" if metric.gain(mean, bar) > 0 else "discard"
        seed = None
        may_replicate = action == "discard" and self.rule == "confirm" and not last
        hope = SIMPLER_HOPE if equal_is_enough else self.hope[min(n, len(self.hope)) - 1]
        if may_replicate and sigmas > hope:
            action = "replicate"
            seed = self._next_seed(candidate, champion, slot)
        return Decision(
            action,
            bar,
            self._explain(n, reference, margin, noise),
            gain,
            sigmas,
            seed,
            seed is not None and seed not in champion,
        )

    def _margin(self, n: int, noise: Noise) -> float:
        if self.rule == "greedy":
            return 0.0
        if self.rule == "strict":
            return noise.bar(3.0)
        return noise.bar(self.keep[min(n, len(self.keep)) - 1])

    def _next_seed(
        self, candidate: Mapping[int, float], champion: Mapping[int, float], slot: int
    ) -> int:
        unused = sorted(seed for seed in champion if seed not in candidate)
        return unused[slot % len(unused)] if unused else max((*candidate, *champion)) + 1

    def _explain(self, n: int, reference: float, margin: float, noise: Noise) -> str:
        seeds = "1 seed" if n == 1 else f"{n} seeds"
        if self.rule == "greedy":
            return f"champion {reference:.6f} on the same {seeds}; any gain counts"
        if margin < 0:
            return (
                f"champion {reference:.6f} on the same {seeds}; the code is simpler, so "
                f"{-margin:.6f} (sigma {noise.sigma:.6f}) counts as equal"
            )
        return (
            f"champion {reference:.6f} on the same {seeds}, less {margin:.6f} that luck explains "
            f"(sigma {noise.sigma:.6f}, {noise.freedom:.0f} degrees of freedom)"
        )


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


def smallest_effect(noise: Noise, replicates: int = len(KEEP)) -> float:
    """Return the gain that is kept in half of all cases when fully replicated."""
    return noise.bar(KEEP[replicates - 1]) * noise.sigma / math.sqrt(replicates)


def preview(noise: Noise, metric: str) -> str:
    """Say what a campaign with this noise can tell apart."""
    once = noise.bar(KEEP[0]) * noise.sigma
    return (
        f"noise: sigma {noise.sigma:.4f} of a paired difference ({noise.freedom:.0f} degrees of "
        f"freedom); a gain of {once:.4f} {metric} is kept at once, one of "
        f"{smallest_effect(noise):.4f} half of the time after {len(KEEP)} replicates"
    )


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
