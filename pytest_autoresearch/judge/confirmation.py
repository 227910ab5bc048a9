"""Confirmation of a campaign's gain on fresh seeds and on the holdout."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from ..core.experiment import Metric
from ..core.records import ABLATION, Attempt, Champion, Confirmation, Gain
from .verdicts import SIMPLER, Noise, Prior, estimate_noise

NORMAL_95 = 1.959964
"""Two-sided 95 % quantile of the normal distribution; `Noise.bar` turns it into a t-quantile."""


def paired_gain(differences: Sequence[float], noise: Noise) -> Gain | None:
    """Return the mean of paired gains with its 95 % interval, or None without differences.

    The scatter of these pairs is pooled into the campaign's noise: that was estimated from
    mutations close to their champion, while the first and the last champion may differ a lot.
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


def lines(confirmation: Confirmation, metric: str) -> Iterator[str]:
    """Format a confirmation for people."""
    if confirmed := confirmation.confirmed:
        yield (
            f"confirmed gain  {confirmed} {metric} on {confirmed.n} fresh "
            f"seed(s); it was kept with {confirmation.kept:+.6f}"
        )
    if confirmation.holdout:
        yield f"holdout gain    {confirmation.holdout} {metric} on text that no run has used"
    if keeps := confirmation.keeps:
        yield f"keeps that hold on fresh seeds: {sum(k.held for k in keeps)} of {len(keeps)}"
    for keep in keeps:
        fresh = "no score" if keep.gain is None else f"{keep.gain:+.6f}"
        yield (
            f"  {'holds' if keep.held else 'FALLS'}  {keep.name} {keep.title}: "
            f"kept with {keep.claimed:+.6f}, now {fresh}"
        )
    yield from confirmation.trouble
