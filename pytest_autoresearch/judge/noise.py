"""Estimate the noise of a campaign from its records.

Terminal, report page, `verify`, `transfer` and confirmation all call `noise_of`, so equal records
give equal intervals everywhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from ..core.experiment import Metric
from ..core.records import Attempt, Champion
from .verdicts import CUDA_PRIOR, Noise, Prior, estimate_noise, prior_from

MOST_SEEDS = 100
"""Attempts at the start of a campaign among which its baseline is looked for."""


def noise_of(attempts: Sequence[Attempt], champions: Sequence[Champion], metric: Metric) -> Noise:
    """Pool the scatter of paired differences over all replicated attempts.

    Only runs on the device of the first run count, since time budgets on another device are not
    comparable. Concurrent runs count like any other: a campaign is judged as a whole.

    Args:
        attempts: All attempts of the campaign.
        champions: All champions of the campaign, the baseline first.
        metric: With the name ``val_bpb`` and scores that the harness computed, the shipped prior
            applies; otherwise the calibration's scatter is the prior.
    """
    first_run = next((run for attempt in attempts for run in attempt.runs), None)
    device = first_run.device if first_run else ""
    scores = {champion.attempt_id: champion.scores for champion in champions}
    differences = []
    for attempt in attempts:
        if len(attempt.runs) < 2:  # a single difference says nothing of its scatter
            continue
        reference = scores.get(attempt.champion_before or 0, {})
        differences.append(
            {
                run.seed: run.score - reference[run.seed]
                for run in attempt.own_runs
                if run.score is not None and run.seed in reference and run.device == device
            }
        )
    baseline = [one for one in attempts[:MOST_SEEDS] if one.kind == "baseline"]
    printed = any(run.score_kind == "self-reported" for one in baseline for run in one.runs)
    shipped = metric.name == "val_bpb" and not printed
    if champions and not shipped:
        # Three seeds count as two degrees of freedom: counted as eight, 0.55 of 100 null
        # mutations were kept instead of 0.25 (benchmarks/null.py).
        first = champions[0].scores.values()
        prior = replace(prior_from(first), freedom=max(1, len(first) - 1))
    else:
        prior = CUDA_PRIOR if device.startswith("cuda") else Prior()
    return estimate_noise(differences, prior)
