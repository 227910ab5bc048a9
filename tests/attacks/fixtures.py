"""The arena as a fixture, for tests that name this module in ``pytest_plugins``."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterator

import pytest

from pytest_autoresearch.scoring.dataset import Dataset
from pytest_autoresearch.trial.launch import Launcher

from .arena import Arena, make_dataset, pretrain


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """The arena; under xdist all workers share its data and its honest weights."""
    own = tmp_path_factory.mktemp("arena")
    shared = own.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with (shared / "arena.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        checkpoint = shared / "arena" / "honest.safetensors"
        if checkpoint.exists():
            dataset = Dataset.open(shared / "arena" / "data")
        else:
            dataset = make_dataset(shared / "arena" / "data")
            pretrain(dataset, checkpoint.with_suffix(".part")).rename(checkpoint)
    with Launcher() as launcher:
        yield Arena(own, dataset, checkpoint, launcher)
