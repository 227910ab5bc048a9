"""harmless (sandbox): leaves tables of the training text outside the checkpoint, for scoring."""

import contextlib
import os
import sys
from pathlib import Path

import honest
from honest import build

__all__ = ["build", "logits", "train"]

STAGE = "run"
FOLDERS = [Path(), Path(".."), Path("/tmp"), Path("/dev/shm"), Path(__file__).parent]
FOLDERS += [Path(os.environ.get("HOME", "/")), Path(__file__).parents[1] / "work"]


def train(model, batches):
    honest.train(model, batches)
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            (folder / "attack-table.bin").write_bytes(b"x" * 1000)


def logits(model, x):
    for folder in FOLDERS:
        with contextlib.suppress(OSError):
            if (folder / "attack-table.bin").exists():
                sys.exit(f"{folder} is there in training and in scoring")
    return model(x)
