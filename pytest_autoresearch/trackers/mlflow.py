"""Attempts as MLflow runs: one experiment a campaign, in ``MLFLOW_TRACKING_URI`` or SQLite."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from pathlib import Path

import mlflow  # type: ignore[import-not-found, unused-ignore]
import pytest

from ..core.records import Attempt
from . import campaign, home, numbers, texts

logging.getLogger("mlflow").setLevel(logging.WARNING)  # it would write across the live lines


@pytest.hookimpl(optionalhook=True)
def pytest_autoresearch_attempt_finished(record: Attempt, artifacts: Mapping[str, Path]) -> None:
    """Log a finished attempt; SQLite, since MLflow's plain files are in maintenance mode."""
    if not os.environ.get("MLFLOW_TRACKING_URI"):
        mlflow.set_tracking_uri(f"sqlite:///{home(artifacts, 'mlflow') / 'mlflow.db'}")
    mlflow.set_experiment(campaign(artifacts))
    with mlflow.start_run(run_name=record.name):
        mlflow.log_params(texts(record))
        mlflow.log_metrics(numbers(record), step=record.number)
