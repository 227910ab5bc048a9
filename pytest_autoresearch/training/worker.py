"""The untrusted side of a run: a confined process that loads and trains the candidate.

It shares its process with candidate code, so the harness checks everything it sends. Imported by
the forkserver, before the fork.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
import math
import mmap
import os
import random
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import safetensors.torch
import torch
from torch import Tensor

from ..forkserver.channel import Channel, PeerGone
from ..scoring.worker import describe, serve
from .parts import StepParts

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_ERROR_CHARACTERS = 500

Batch = tuple[Tensor, Tensor, float]


def main(channel: Channel) -> int:
    """Receive the job, do it, and return the exit status; never raises for candidate code."""
    try:
        job: Mapping[str, Any] = channel.receive()
        seed(job["seed"])
        torch.set_num_threads(job["threads"])
        keep_memory()
        module = load(Path(job["directory"]), job["entry"])
        if job["phase"] == "score":
            serve(channel, module, job)
        else:
            train(channel, module, job)
    except PeerGone:
        return 0
    except BaseException as error:
        traceback.print_exc()
        flush()
        with contextlib.suppress(Exception):
            channel.send({"type": "error", "error": describe(error)[:_ERROR_CHARACTERS]})
        return 1
    flush()
    return 0


def flush() -> None:
    """Flush the output; the harness kills this process after its last message."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()


def seed(value: int) -> None:
    """Seed every generator that train.py may use."""
    random.seed(value)
    np.random.seed(value % 2**32)
    torch.manual_seed(value)


def keep_memory() -> None:
    """Make glibc keep freed memory; by default it maps each large tensor again, page by page."""
    with contextlib.suppress(AttributeError, OSError):
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)  # the maximum that glibc accepts
        mallopt(_M_TRIM_THRESHOLD, 1 << 30)


def load(directory: Path, entry: str) -> ModuleType:
    """Import `entry` of the candidate's copy as the module ``train``."""
    sys.path.insert(0, str(directory))
    spec = importlib.util.spec_from_file_location("train", directory / entry)
    if spec is None or spec.loader is None:
        raise ImportError(f"{entry} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules["train"] = module
    spec.loader.exec_module(module)
    for name in ("build", "train", "logits"):
        if not callable(getattr(module, name, None)):
            raise AttributeError(f"{entry} defines no function {name}")
    return module


def train(channel: Channel, module: ModuleType, job: Mapping[str, Any]) -> None:
    """Build the model, wait for the data, train until the budget ends, and save."""
    seed(job["seed"])
    model: torch.nn.Module = module.build(job["vocab_size"], job["seq_len"])
    channel.send(
        {
            "type": "ready",
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
        }
    )
    if channel.receive()["type"] != "go":
        return
    # on CUDA the calls return before their work is done
    parts = StepParts(model, job["vocab_size"]) if job["device"] != "cuda" else None
    batches = Batches(channel, channel.take_fds()[0], parts)
    module.train(model, batches)
    checkpoint = Path(job["checkpoint"])
    partial = checkpoint.with_suffix(".part")
    safetensors.torch.save_model(model, str(partial))
    os.replace(partial, checkpoint)
    flush()
    metrics = {"loss": batches.last_loss} if math.isfinite(batches.last_loss) else {}
    if parts is not None:
        metrics |= parts.figures()
    else:
        metrics["device_memory_bytes"] = torch.cuda.max_memory_allocated()
    channel.send({"type": "done", "metrics": metrics})


class Batches:
    """The training data, metered by the harness.

    ``for x, y, progress in batches(batch_size, seq_len)`` yields int64 tensors of shape
    (batch_size, seq_len) on the CPU, where y is x shifted by one token, and the used fraction of
    the budget, in [0, 1). It ends with the budget; every later loop is empty.
    """

    def __init__(self, channel: Channel, memory_fd: int, parts: StepParts | None) -> None:
        self._channel = channel
        self._parts = parts
        self._memory = mmap.mmap(memory_fd, 0, prot=mmap.PROT_READ)
        os.close(memory_fd)
        self._tokens = np.frombuffer(self._memory, dtype="<u2")
        self._reported: float | None = None
        self.last_loss = math.nan

    def __call__(self, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """Iterate over batches of this shape until the budget ends."""
        shape = (int(batch_size), int(seq_len) + 1)
        request = {"type": "batch", "batch_size": shape[0], "seq_len": shape[1] - 1}
        while True:
            if self._parts is not None:
                self._parts.requested()
            self._channel.send({**request, "loss": self._take_report()})
            answer: dict[str, Any] = self._channel.receive()
            if answer["type"] != "tokens":
                return
            tokens = self._tokens[: shape[0] * shape[1]].astype(np.int64)
            rows = torch.from_numpy(tokens).view(shape)
            batch = rows[:, :-1].contiguous(), rows[:, 1:].contiguous(), answer["progress"]
            if self._parts is not None:
                self._parts.handed_out()
            yield batch

    def report(self, *, loss: float | Tensor) -> None:
        """Report the latest training loss to the harness, with the next request."""
        self._reported = self.last_loss = float(loss)

    def _take_report(self) -> float | str | None:
        loss, self._reported = self._reported, None
        return loss if loss is None or math.isfinite(loss) else str(loss)
