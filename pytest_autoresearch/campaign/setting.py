"""The setting of a campaign in words, for models: data, budget, limits, machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import math
import platform
from pathlib import Path

from ..core.experiment import Budget, Experiment
from ..data.dataset import Dataset, DatasetError
from ..scoring.process import HIGHEST_LOGIT
from ..training.devices import Device
from .runs import CHECKPOINT_TIMES


def open_dataset(root: Path, experiment: Experiment) -> Dataset | None:
    """Return the experiment's data set; None if it has none of the package's format."""
    if experiment.data is None:
        return None
    with contextlib.suppress(DatasetError):
        return Dataset.open(root / experiment.data)
    return None


def bits_per_nat(dataset: Dataset | None) -> float:
    """Return the bits per byte of a loss of one nat a token on the training text; 0: unknown."""
    tokens, size = _counts(dataset, "train")
    return tokens / size / math.log(2) if size else 0.0


def describe(
    experiment: Experiment,
    dataset: Dataset | None,
    budget: Budget,
    device: Device,
    threads: int,
    memory_bytes: int,
) -> str:
    """Return the setting, a paragraph each; the same for the whole campaign.

    Args:
        experiment: The declaration.
        dataset: Its data set, or None.
        budget: Of a run.
        device: What runs train on.
        threads: CPU threads of a run.
        memory_bytes: Limit of a run's memory.
    """
    parts = [_data(dataset, budget) if dataset else "", _budget(budget)]
    memory = f"{memory_bytes / 2**30:.1f} GiB of memory"
    if experiment.run is None:
        parts.append(
            "Limits: logits() gets rows of any length from 1 to the full row, in batches of any "
            "size, and must give the same answer for a row in all of them; logits are finite and "
            f"at most {HIGHEST_LOGIT:g} in magnitude; the trained state holds at most a tenth more "
            "bytes than the state of the model that build() returns, and at most "
            f"{CHECKPOINT_TIMES} times the baseline's; a run may use {memory}; build() and saving "
            "cost budget where they take more CPU seconds than the baseline's; train() returns "
            "when its loop over batches ends."
        )
    else:
        parts.append(f"Limits: a run may use {memory}.")
    parts.append(_machine(device, threads))
    return "\n\n".join(part for part in parts if part)


def _data(dataset: Dataset, budget: Budget) -> str:
    tokens, size = _counts(dataset, "train")
    parts = [
        f"Data: a vocabulary of {dataset.vocab_size:,} tokens; rows of {dataset.seq_len} tokens"
    ]
    if size:
        parts.append(f"{tokens:,} training tokens of {size / tokens:.2f} bytes on average")
        if budget.kind != "wall":
            parts.append(f"{budget.amount:,.0f} of them are {budget.amount / tokens:.2g} epochs")
    tokens, size = _counts(dataset, "val")
    if size:
        parts.append(
            f"scored on {tokens:,} tokens of other documents ({size / tokens:.2f} bytes each)"
        )
    return "; ".join(parts) + "."


def _counts(dataset: Dataset | None, split: str) -> tuple[int, int]:
    """Return tokens and bytes of a split; zeros if the manifest does not say."""
    counts = dataset.manifest.get("splits", {}).get(split, {}) if dataset else {}
    tokens, size = int(counts.get("tokens", 0)), int(counts.get("bytes", 0))
    return (tokens, size) if tokens > 0 and size > 0 else (0, 0)


def _budget(budget: Budget) -> str:
    if budget.kind == "wall":
        return f"Budget: each run trains for {budget.amount:g} seconds of wall time."
    if budget.kind == "work":
        return (
            f"Budget: each run gets {budget.amount:,.0f} units of training data (tokens), whatever "
            "its speed."
        )
    return (
        f"Budget: each run gets the CPU work that the baseline needs for {budget.amount:,.0f} "
        "tokens on this machine. Code that costs less for a token sees more tokens, code that "
        "costs more sees fewer, code of equal cost sees exactly as many."
    )


def _machine(device: Device, threads: int) -> str:
    versions = [f"Python {platform.python_version()}"]
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        versions.append(f"torch {importlib.metadata.version('torch')}")
    where = device.name or device.kind
    if device.kind == "cpu":
        where += f", {threads} thread{'s' if threads != 1 else ''} a run"
    return f"Machine: {where}; {', '.join(versions)}."
