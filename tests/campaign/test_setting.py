"""The setting in words: data, budget, limits, machine."""

from __future__ import annotations

import json
import math
import sys
from pathlib import Path

import pytest
from support.runs import write_dataset

from pytest_autoresearch import Budget, Experiment
from pytest_autoresearch.campaign.setting import bits_per_nat, describe, open_dataset
from pytest_autoresearch.data.dataset import MANIFEST
from pytest_autoresearch.training.devices import Device

CPU = Device("cpu", name="A Processor")

SPLITS = {"train": {"tokens": 40_000, "bytes": 100_000}, "val": {"tokens": 2_000, "bytes": 6_000}}


@pytest.fixture
def experiment(tmp_path: Path) -> Experiment:
    folder = write_dataset(tmp_path / "data")
    manifest = json.loads((folder / MANIFEST).read_text()) | {"splits": SPLITS}
    (folder / MANIFEST).write_text(json.dumps(manifest))
    return Experiment(data=Path("data"))


def words(experiment: Experiment, root: Path, budget: str, device: Device = CPU) -> str:
    dataset = open_dataset(root, experiment)
    return describe(experiment, dataset, Budget.parse(budget), device, 1, 3 << 30)


def test_data_limits_and_machine_are_stated(experiment: Experiment, tmp_path: Path) -> None:
    text = words(experiment, tmp_path, "equal:10ktok")
    assert (
        "Data: a vocabulary of 32 tokens; rows of 16 tokens; 40,000 training tokens of 2.50 bytes "
        "on average; 10,000 of them are 0.25 epochs; scored on 2,000 tokens of other documents "
        "(3.00 bytes each)."
    ) in text
    assert "needs for 10,000 tokens on this machine" in text
    assert "rows of any length from 1 to the full row" in text
    assert "at most a tenth more bytes than the state of the model that build() returns" in text
    assert "3.0 GiB of memory" in text
    assert "Machine: A Processor, 1 thread a run; Python 3." in text
    assert ", torch 2." in text


def test_budget_is_said_in_words(experiment: Experiment, tmp_path: Path) -> None:
    assert "trains for 30 seconds of wall time" in words(experiment, tmp_path, "30s")
    assert "epochs" not in words(experiment, tmp_path, "30s")
    assert "gets 10,000 units of training data" in words(experiment, tmp_path, "10ktok")


def test_losses_are_converted_with_the_training_texts_bytes(experiment, tmp_path: Path) -> None:
    assert bits_per_nat(open_dataset(tmp_path, experiment)) == pytest.approx(0.4 / math.log(2))


def test_what_is_unknown_is_left_out(tmp_path: Path) -> None:
    write_dataset(tmp_path / "data")
    plain = Experiment(data=Path("data"))
    assert bits_per_nat(open_dataset(tmp_path, plain)) == 0
    assert "training tokens" not in words(plain, tmp_path, "10ktok")
    command = Experiment(run=(sys.executable, "train.py"))
    text = words(command, tmp_path, "10s", Device("cuda", "0", "cuda:0"))
    assert "Data:" not in text
    assert "logits" not in text
    assert "Machine: cuda:0; Python" in text
    assert open_dataset(tmp_path, Experiment(data=Path("nowhere"))) is None
