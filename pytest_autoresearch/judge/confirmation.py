"""Confirmation of a campaign's gain on fresh seeds and on the holdout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from ..core.experiment import Metric
from ..core.records import ABLATION, Attempt, Champion, Confirmation, Gain, Standing
from .verdicts import SIMPLER, Noise, t_quantile

NORMAL_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution; made a t-quantile where it is used."""

LOOK = 2.4
"""The quantile while further seeds may follow: five looks at 2.4 confirm a gain of zero as often as
one look at `NORMAL_95`."""

FEWEST, MOST = 2, 6
"""Fresh seeds of a confirmation. With `MOST` pairs, their own scatter gives the interval."""


def paired_gain(differences: Sequence[float], noise: Noise) -> Gain | None:
    """Return the mean of paired gains with its interval, or None without differences.

    With `MOST` pairs the interval is Student's, of these pairs alone. With fewer, their scatter is
    pooled into the campaign's noise, which was measured on the champions themselves, while the
    first and the last one may differ a lot; and the interval is wider, since more may follow.
    """
    if not differences:
        return None
    n, mean = len(differences), fmean(differences)
    squares = math.fsum((difference - mean) ** 2 for difference in differences)
    if n >= MOST:
        half = t_quantile(NORMAL_95, n - 1) * math.sqrt(squares / (n - 1) / n)
    else:
        freedom = noise.freedom + n - 1
        sigma = math.sqrt((noise.freedom * noise.sigma**2 + squares) / freedom)
        half = t_quantile(LOOK, round(freedom, 1)) * sigma / math.sqrt(n)
    return Gain(mean, mean - half, mean + half, n)


def standing(attempt: Attempt, gain: Gain, noise: Noise, metric: Metric) -> Standing:
    """Return how far a keep is established; one kept for being simpler need only be equal."""
    equal = attempt.kind == ABLATION
    if attempt.score is not None and attempt.bar is not None and attempt.gain is not None:
        # the bar of a simplification is worse than the champion's score
        equal |= metric.gain(attempt.score, attempt.bar) > attempt.gain + 1e-9 * abs(attempt.score)
    if equal and gain.gain > SIMPLER * noise.sigma / math.sqrt(gain.n):
        return "confirmed"
    return gain.standing


def kept_gain(attempts: Sequence[Attempt], champions: Sequence[Champion]) -> float:
    """Return the sum of the paired gains of the champion's keeps."""
    kept = {champion.attempt_id for champion in champions[1:]}
    return math.fsum(attempt.gain or 0.0 for attempt in attempts if attempt.id in kept)


def level(attempts: Sequence[Attempt], champions: Sequence[Champion], metric: Metric) -> float:
    """Return the last champion's score on the baseline's seeds, by the paired gains of its keeps.

    The mean over its own seeds would differ by the luck of those seeds.
    """
    gain = kept_gain(attempts, champions)
    return champions[0].mean - (gain if metric.direction == "min" else -gain)


def percent(gain: float, champions: Sequence[Champion]) -> str:
    """Return a gain as a share of the baseline's mean, like ``+1.2 %``, or '' if that is zero."""
    base = abs(champions[0].mean)
    return f"{gain / base:+.2%}".replace("%", " %") if base else ""


def lines(confirmation: Confirmation, metric: str) -> Iterator[str]:
    """Format a confirmation for people."""
    if gain := confirmation.confirmed:
        seeds = f"{gain.n} fresh seed" + "s" * (gain.n != 1)
        note = "; the interval includes zero" if gain.standing == "open" else ""
        yield (
            f"{gain.standing} gain  {gain} {metric} on {seeds}{note}; "
            f"it was kept with {confirmation.kept:+.6f}"
        )
    if confirmation.holdout:
        yield f"holdout gain    {confirmation.holdout} {metric} on text that no run has used"
    if keeps := confirmation.keeps:
        sure = sum(keep.standing == "confirmed" for keep in keeps)
        yield f"keeps confirmed on fresh seeds: {sure} of {len(keeps)}"
    for keep in keeps:
        fresh = "no score" if keep.again is None else f"{keep.again} on {keep.again.n}"
        yield (
            f"  {keep.standing:9} {keep.name} {keep.title}: "
            f"kept with {keep.claimed:+.6f}, now {fresh}"
        )
    yield from confirmation.trouble
