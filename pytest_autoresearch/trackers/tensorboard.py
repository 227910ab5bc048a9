"""Slots in TensorBoard: scalars over slot numbers, losses over thousandths of a trial's budget.

Written by tensorboardX, which needs no torch: a pytest process never imports it.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter  # type: ignore[import-not-found, unused-ignore]

from ..core.records import SlotRecord
from . import campaign, figures, home, words


@pytest.hookimpl(optionalhook=True)
def pytest_autoresearch_trial_finished(record: SlotRecord, artifacts: Mapping[str, Path]) -> None:
    """Write one finished slot: ``tensorboard --logdir .autoresearch/tensorboard``."""
    with SummaryWriter(str(home(artifacts, "tensorboard") / campaign(artifacts))) as writer:
        for name, value in figures(record).items():
            writer.add_scalar(f"{record.kind}/{name}", value, record.number)
        for name, text in words(record).items():
            writer.add_text(f"{record.name}/{name}", text, record.number)
        for trial in record.own_trials:
            for fraction, loss in trial.curve:
                writer.add_scalar(f"loss/{record.name}-{trial.seed}", loss, round(1000 * fraction))
