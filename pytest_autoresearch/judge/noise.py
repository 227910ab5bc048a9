"""Estimate the noise of a campaign from its records.

Terminal, report page, `verify`, `transfer` and confirmation all call `noise_of`, so equal records
give equal intervals everywhere.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from ..core.experiment import Metric
from ..core.records import Attempt, Champion
from ..core.run import Purpose
from .verdicts import CUDA_PRIOR, Noise, Prior, estimate_noise, prior_from, resolution

EARLY = 100
"""Attempts at the start of a campaign that hold its baseline and show the metric's resolution."""

UNMEASURED = 8.0
"""Degrees of freedom of the shipped prior where no repeat has been measured."""


def noise_of(attempts: Sequence[Attempt], champions: Sequence[Champion], metric: Metric) -> Noise:
    """Estimate the noise from runs that repeat a champion with another random stream.

    Only runs on the device of the first run count, since time budgets on another device are not
    comparable. Concurrent runs count like any other: a campaign is judged as a whole.

    Args:
        attempts: All attempts of the campaign.
        champions: All champions of the campaign, the baseline first.
        metric: With the name ``val_bpb`` and scores that the harness computed, the shipped prior
            applies; for any other, the prior has the scatter of the repeats themselves.
    """
    first_run = next((run for attempt in attempts for run in attempt.runs), None)
    device = first_run.device if first_run else ""
    early = [run for attempt in attempts[:EARLY] for run in attempt.runs]
    scores = [run.score for run in early if run.score is not None]
    calibration = [run for run in early if run.purpose is Purpose.CALIBRATE]
    baseline = {run.seed: run.score for run in calibration}
    printed = any(run.score_kind == "self-reported" for run in calibration)
    prior = CUDA_PRIOR if device.startswith("cuda") else Prior()
    if printed or metric.name != "val_bpb":
        prior = Prior(0.0, 0.0)  # its scale is unknown
    repeats = [
        run.score - before
        for attempt in attempts
        for run in attempt.runs
        if run.purpose is Purpose.REPEAT and run.score is not None and run.device == device
        and (before := baseline.get(run.seed) if run.repeats is None else run.repeats) is not None
    ]  # fmt: skip
    seeds = list(champions[0].scores.values()) if champions else []
    floor = 1e-9 * abs(fmean(seeds)) if seeds else 0.0
    if repeats and not any(repeats) and len(set(seeds)) == 1:
        # A coarse step is no floor here: any change that repeats exactly is real.
        return Noise(max(floor, 1e-12), 1e9, True)
    if not any(repeats):
        # Without repeats, or where the stream has no effect though the seed has.
        scatter = prior_from([champion.scores.values() for champion in champions])
        prior = replace(prior, freedom=UNMEASURED) if prior.sigma else scatter
        return estimate_noise([], prior, max(floor, 1e-12))
    if not prior.sigma:
        prior = Prior(math.sqrt(fmean(value * value for value in repeats)), 1.0)
    return estimate_noise(repeats, prior, max(floor, resolution(scores)))
