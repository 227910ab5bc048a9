"""The noise of a campaign: of paired differences, pooled over everything that was replicated."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.experiment import Experiment

if TYPE_CHECKING:
    from ..core.records import Champion, SlotRecord
    from ..ledger.store import Ledger
    from .verdicts import Noise


def noise_of(
    ledger: Ledger, experiment: Experiment, device: str | None = None, concurrency: int = 0
) -> Noise:
    """Return the noise as it is known now.

    Args:
        ledger: Of the campaign.
        experiment: Decides whether the shipped prior fits, or one of the calibration's scale.
        device: Only trials on this device count; None: all.
        concurrency: Only trials with so many side by side count; 0: all.
    """
    shipped = experiment.metric.name == "val_bpb" and experiment.run is None
    return pooled(ledger.slots(), ledger.champions(), shipped, device, concurrency)


def pooled(
    slots: Sequence[SlotRecord],
    champions: Sequence[Champion],
    shipped: bool,
    device: str | None = None,
    concurrency: int = 0,
) -> Noise:
    """Return the noise from the records alone; see `noise_of`.

    Args:
        slots: Of the campaign.
        champions: Of the campaign.
        shipped: Whether the shipped prior is of this metric's scale.
        device: Only trials on this device count; None: all.
        concurrency: Only trials with so many side by side count; 0: all.
    """
    from .verdicts import CUDA_PRIOR, Prior, estimate_noise, prior_from

    scores = {champion.slot_id: champion.scores for champion in champions}
    groups = []
    for slot in slots:
        reference = scores.get(slot.champion_before or 0, {})
        groups.append(
            {
                trial.seed: trial.score - reference[trial.seed]
                for trial in slot.own_trials
                if trial.score is not None
                and trial.seed in reference
                and device in (None, trial.device)
                and concurrency in (0, trial.concurrency)
            }
        )
    if champions and not shipped:
        # what three seeds tell of the scale is worth two degrees of freedom; taken for eight, 0.55
        # of 100 mutations that do nothing were kept instead of 0.25
        first = champions[0].scores.values()
        return estimate_noise(groups, replace(prior_from(first), freedom=max(1, len(first) - 1)))
    any_trial = next((trial for slot in slots for trial in slot.trials), None)
    on_cuda = any_trial is not None and any_trial.device.startswith("cuda")
    return estimate_noise(groups, CUDA_PRIOR if on_cuda else Prior())
