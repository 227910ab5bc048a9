"""Confirmation of a campaign's gain on fresh seeds and on the holdout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any

from ..core.experiment import Metric
from ..core.records import ABLATION, Attempt, Champion
from .verdicts import SIMPLER, Noise, Prior, estimate_noise

NORMAL_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution; `Noise.bar` turns it into a t-quantile."""


@dataclass(frozen=True)
class Gain:
    """A gain over paired seeds, positive is better.

    Attributes:
        gain: Mean difference, in the metric's unit.
        low, high: 95 % interval of it.
        n: Pairs.
    """

    gain: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Survival:
    """The result of one keep on fresh seeds.

    Attributes:
        attempt: Ledger row of the kept attempt.
        name, title: Of the attempt.
        claimed: Gain it was kept with.
        gain: Mean gain over the champion before it, on fresh seeds; None if it has no score there.
        held: Whether that gain is positive or, for a simplification, still counts as equal.
    """

    attempt: int
    name: str
    title: str
    claimed: float
    gain: float | None
    held: bool


@dataclass(frozen=True)
class Confirmation:
    """The gain of a campaign, measured again; stored as the ledger's fact ``confirmation``.

    Attributes:
        champion: Version of the last champion.
        seeds: The fresh seeds.
        kept: Sum of the paired gains of the last champion's keeps.
        confirmed: Gain of the last over the first champion on the fresh seeds; None if either has
            no score there.
        holdout: The same for the saved checkpoints on the holdout; None without one.
        keeps: One entry per examined keep.
        trouble: One line per measurement that failed.
    """

    champion: int
    seeds: tuple[int, ...]
    kept: float
    confirmed: Gain | None = None
    holdout: Gain | None = None
    keeps: tuple[Survival, ...] = ()
    trouble: tuple[str, ...] = ()


def paired_gain(differences: Sequence[float], noise: Noise) -> Gain | None:
    """Return the mean of paired gains with its 95 % interval, or None without differences.

    The scatter of these pairs is pooled into the campaign's noise: that was estimated from
    mutations close to their champion, while the first and the last champion may differ a lot.

    Args:
        differences: Gains seed by seed, positive is better.
        noise: Of one difference, as estimated by the campaign.
    """
    if not differences:
        return None
    n, mean = len(differences), fmean(differences)
    noise = estimate_noise([dict(enumerate(differences))], Prior(noise.sigma, noise.freedom))
    half = noise.bar(NORMAL_95) * noise.sigma / math.sqrt(n)
    return Gain(mean, mean - half, mean + half, n)


def still_holds(attempt: Attempt, fresh: Gain, noise: Noise, metric: Metric) -> bool:
    """Return whether a keep is still better, or still equal if it was kept as a simplification."""
    equal = attempt.kind == ABLATION
    if attempt.score is not None and attempt.bar is not None and attempt.gain is not None:
        # the bar of a simplification is worse than the champion's score
        equal |= metric.gain(attempt.score, attempt.bar) > attempt.gain + 1e-9 * abs(attempt.score)
    return fresh.gain > (SIMPLER * noise.sigma / math.sqrt(fresh.n) if equal else 0.0)


def kept_gain(attempts: Sequence[Attempt], champions: Sequence[Champion]) -> float:
    """Return the sum of the paired gains of the champion's keeps."""
    kept = {champion.attempt_id for champion in champions[1:]}
    return math.fsum(attempt.gain or 0.0 for attempt in attempts if attempt.id in kept)


def lines(facts: dict[str, Any], metric: str) -> Iterator[str]:
    """Format the ledger's fact ``confirmation`` for people."""
    if confirmed := facts.get("confirmed"):
        yield (
            f"confirmed gain  {format_interval(confirmed)} {metric} on {confirmed['n']} fresh "
            f"seed(s); it was kept with {facts['kept']:+.6f}"
        )
    if holdout := facts.get("holdout"):
        yield f"holdout gain    {format_interval(holdout)} {metric} on text that no run has used"
    keeps = facts.get("keeps", ())
    if keeps:
        held = sum(bool(keep["held"]) for keep in keeps)
        yield f"keeps that hold on fresh seeds: {held} of {len(keeps)}"
        for keep in keeps:
            fresh = "no score" if keep["gain"] is None else f"{keep['gain']:+.6f}"
            yield (
                f"  {'holds' if keep['held'] else 'FALLS'}  {keep['name']} {keep['title']}: "
                f"kept with {keep['claimed']:+.6f}, now {fresh}"
            )
    yield from facts.get("trouble", ())


def format_interval(gain: Mapping[str, Any]) -> str:
    """Return a gain with its interval: ``+0.071200 [+0.051200, +0.091200]``."""
    return f"{gain['gain']:+.6f} [{gain['low']:+.6f}, {gain['high']:+.6f}]"
