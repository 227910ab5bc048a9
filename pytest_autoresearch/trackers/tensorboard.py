"""Attempts in TensorBoard: figures over attempt numbers, losses over thousandths of a run's budget.

Written by tensorboardX, which does not import torch.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from tensorboardX import SummaryWriter  # type: ignore[import-not-found, unused-ignore]

from ..core.records import Attempt
from . import campaign, home, numbers, texts


@pytest.hookimpl(optionalhook=True)
def pytest_autoresearch_attempt_finished(record: Attempt, artifacts: Mapping[str, Path]) -> None:
    """Write a finished attempt: ``tensorboard --logdir .autoresearch/tensorboard``."""
    with SummaryWriter(str(home(artifacts, "tensorboard") / campaign(artifacts))) as writer:
        for name, value in numbers(record).items():
            writer.add_scalar(f"{record.kind}/{name}", value, record.number)
        for name, text in texts(record).items():
            writer.add_text(f"{record.name}/{name}", text, record.number)
        for run in record.own_runs:
            for fraction, loss in run.curve:
                writer.add_scalar(f"loss/{record.name}-{run.seed}", loss, round(1000 * fraction))
