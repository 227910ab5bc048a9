"""TODO judge.confirmation."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..core.experiment import Metric
from ..core.records import ABLATION
from .verdicts import SIMPLER, Noise, Prior, estimate_noise

if TYPE_CHECKING:
    from ..core.records import Attempt, Champion

NORMAL_95 = 1.959964
"""Two-sided 95 % in standard deviations of a normal law; turned into a t-quantile by the noise."""


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
    """Whether a keep is still one on fresh seeds.

    Attributes:
        attempt: Ledger row of the kept attempt.
        name, title: Of the attempt.
        claimed: Gain it was kept with.
        gain: Mean gain over the champion before it, on fresh seeds; None if it has no score there.
        held: Whether that gain is positive; of what was kept for being equal and simpler, whether
            it is not behind by more than what counted as equal.
    """

    attempt: int
    name: str
    title: str
    claimed: float
    gain: float | None
    held: bool


@dataclass(frozen=True)
class Confirmation:
    """What is left of a campaign's gain; stored as the ledger's fact ``closing``.

    Attributes:
        champion: Version of the last champion.
        seeds: The fresh seeds.
        kept: Gain of the last over the first champion by the pairs that its keeps were judged by.
        confirmed: The same on the fresh seeds; None if either has no score there.
        holdout: The same from the saved checkpoints on the holdout; None without one.
        keeps: Of every keep that was examined.
        trouble: Why something could not be measured, one line each.
    """

    champion: int
    seeds: tuple[int, ...]
    kept: float
    confirmed: Gain | None = None
    holdout: Gain | None = None
    keeps: tuple[Survival, ...] = ()
    trouble: tuple[str, ...] = field(default=())


def paired_gain(differences: Sequence[float], noise: Noise) -> Gain | None:
    """Mean of paired gains with its 95 % interval.

    The campaign's noise was pooled from mutations that differ a little from their champion. What
    the first and the last one differ by may scatter more, so these pairs are pooled with it.

    Args:
        differences: Gains seed by seed, positive is better.
        noise: Standard deviation of one of them, as the campaign knows it.

    Returns:
        None without differences.
    """
    if not differences:
        return None
    n = len(differences)
    mean = math.fsum(differences) / n
    noise = estimate_noise([dict(enumerate(differences))], Prior(noise.sigma, noise.freedom))
    half = noise.bar(NORMAL_95) * noise.sigma / math.sqrt(n)
    return Gain(mean, mean - half, mean + half, n)


def _holds(attempt: Attempt, again: Gain, noise: Noise, metric: Metric) -> bool:
    """Whether a keep is still what it was kept for: better, or equal and simpler."""
    equal = attempt.kind == ABLATION
    if attempt.score is not None and attempt.bar is not None and attempt.gain is not None:
        # such a bar lies behind the champion's score
        equal |= metric.gain(attempt.score, attempt.bar) > attempt.gain + 1e-9 * abs(attempt.score)
    return again.gain > (SIMPLER * noise.sigma / math.sqrt(again.n) if equal else 0.0)


def kept_gain(attempts: Sequence[Attempt], champions: Sequence[Champion]) -> float:
    """Return the sum of the paired gains that the champion's keeps were kept with."""
    kept = {champion.attempt_id for champion in champions[1:]}
    return math.fsum(attempt.gain or 0.0 for attempt in attempts if attempt.id in kept)


def lines(facts: dict[str, Any], metric: str) -> Iterator[str]:
    """Say what the ledger's fact ``closing`` holds, for people."""
    if confirmed := facts.get("confirmed"):
        yield (
            f"confirmed gain  {format_interval(confirmed)} {metric} on {confirmed['n']} fresh seed(s); "
            f"it was kept with {facts['kept']:+.6f}"
        )
    if holdout := facts.get("holdout"):
        yield f"holdout gain    {format_interval(holdout)} {metric} on text that no trial has seen"
    keeps = facts.get("keeps", ())
    if keeps:
        held = sum(bool(keep["held"]) for keep in keeps)
        yield f"keeps that hold on fresh seeds: {held} of {len(keeps)}"
        for keep in keeps:
            again = "no score" if keep["gain"] is None else f"{keep['gain']:+.6f}"
            yield (
                f"  {'holds' if keep['held'] else 'FALLS'}  {keep['name']} {keep['title']}: "
                f"kept with {keep['claimed']:+.6f}, now {again}"
            )
    yield from facts.get("trouble", ())


def format_interval(gain: Mapping[str, Any]) -> str:
    """Return a gain with its interval: ``+0.071200 [+0.051200, +0.091200]``."""
    return f"{gain['gain']:+.6f} [{gain['low']:+.6f}, {gain['high']:+.6f}]"
