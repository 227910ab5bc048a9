"""A tiny data set, small candidates and process checks for tests that train."""

from __future__ import annotations

import atexit
import contextlib
import functools
import hashlib
import json
import os
import textwrap
import time
from pathlib import Path

import numpy as np

from pytest_autoresearch import Budget
from pytest_autoresearch.core.processes import process_start, read_stat
from pytest_autoresearch.core.run import RunSpec
from pytest_autoresearch.data import dataset
from pytest_autoresearch.forkserver.launch import Launcher

VOCAB, SEQ_LEN = 32, 16

HONEST = """
import torch
from torch import nn

def build(vocab_size, seq_len):
    return nn.Sequential(nn.Embedding(vocab_size, 16), nn.Linear(16, vocab_size))

def train(model, batches):
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    for x, y, progress in batches(8, 16):
        loss = nn.functional.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        batches.report(loss=loss.item())
    print("trained to", round(loss.item(), 3))

def logits(model, x):
    return model(x)
"""

BUILD = HONEST[: HONEST.index("def train")] + HONEST[HONEST.index("def logits") :]
"""HONEST without its ``train``."""


@functools.cache
def shared_launcher() -> Launcher:
    """Return one launcher for all tests of a process; starting one costs seconds."""
    launcher = Launcher()
    atexit.register(launcher.close)
    return launcher


def candidate(train: str, *, build: str = BUILD) -> str:
    """Return a candidate whose ``train(model, batches)`` has this body."""
    return (
        build + "\ndef train(model, batches):\n" + textwrap.indent(textwrap.dedent(train), "    ")
    )


def write_dataset(folder: Path, *, train_tokens: int = 40_000) -> Path:
    """Write a learnable data set in the real format: a noisy cycle over the vocabulary."""
    folder.mkdir(parents=True)
    random = np.random.RandomState(0)
    contents = {}
    for split, count in (("train", train_tokens), ("val", 2_000), ("holdout", 2_000)):
        steps = random.choice([1, 1, 1, 2, 5], size=count)
        tokens = np.cumsum(steps) % (VOCAB - 1)
        tokens[::200] = VOCAB - 1
        contents[f"{split}.bin"] = tokens.astype("<u2").tobytes()
    contents["tokenizer.json"] = json.dumps(
        {"pattern": ".", "tokens": [chr(i) for i in range(VOCAB - 1)]}
    ).encode()
    contents["token_bytes.bin"] = np.array([1] * (VOCAB - 1) + [0], "<u2").tobytes()
    hashes = {}
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        hashes[name] = hashlib.sha256(content).hexdigest()
    manifest = {
        "format": dataset.FORMAT,
        "corpus": "cycle",
        "python": "3.11",
        "vocab_size": VOCAB,
        "seq_len": SEQ_LEN,
        "dtype": "uint16",
        "files": {n: {"sha256": hashes[n], "bytes": len(contents[n])} for n in contents},
        "splits": {},
        "hidden_sources": [],
        "data_sha256": dataset.identity(VOCAB, SEQ_LEN, hashes),
    }
    (folder / dataset.MANIFEST).write_text(json.dumps(manifest))
    return folder


def make_spec(
    data: Path, train_py: str = HONEST, budget: str = "4ktok", **fields: object
) -> RunSpec:
    """Return a `RunSpec` that trains `train_py`."""
    files = {"train.py": train_py.encode()}
    values: dict[str, object] = {
        "run_id": "run-1",
        "seed": 1,
        "audit": 64,
        "reference_files": files,
        "wall_limit_s": 120.0,
        **fields,
    }
    return RunSpec(files=files, entry="train.py", budget=Budget.parse(budget), data=data, **values)


def descendants(pid: int) -> set[int]:
    """Return the living descendants of a process, from ``/proc``."""
    parents = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            with contextlib.suppress(OSError):
                parents[int(name)] = int(read_stat(name)[1])
    found: set[int] = set()
    grown = {pid}
    while grown:
        grown = {child for child, parent in parents.items() if parent in grown} - found
        found |= grown
    return found


def alive(pid: int) -> bool:
    """Return whether a process exists and is not a zombie."""
    return bool(process_start(pid))


def all_gone(pids: set[int], within_s: float = 20.0) -> bool:
    """Wait until all these processes have ended; return whether they did in time."""
    deadline = time.monotonic() + within_s
    while any(alive(pid) for pid in pids):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.02)
    return True
