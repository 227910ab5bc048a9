"""The metered data loader: which tokens a candidate trains on, and how many.

All candidates that request the same shape under the same seed get the same batches in the same
order. Nothing can be read ahead: the shared memory holds one batch at a time.
"""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..forkserver.channel import ProtocolError, mapped_memory

MAX_BATCH_TOKENS = 1 << 21
"""Tokens of the largest batch: batch_size * (seq_len + 1)."""

Tokens = npt.NDArray[np.uint16]


class Windows:
    """Shuffled windows of ``seq_len + 1`` tokens of a stream, each once per epoch.

    Neighboring windows share their border token. The offset of the first and the order are drawn
    from seed and epoch. Epochs follow each other without a gap.

    Raises:
        ProtocolError: The stream is shorter than two windows.
    """

    def __init__(self, stream: Tokens, seq_len: int, seed: int) -> None:
        self._count = (len(stream) - 1) // seq_len - 1  # leaves one window's room for the offset
        if self._count < 1:
            raise ProtocolError(
                f"asked for rows of {seq_len} tokens; the training stream holds {len(stream)}"
            )
        self._stream, self._seq_len, self._seed = stream, seq_len, seed
        self._epoch, self._next = -1, self._count
        self._starts = np.empty(0, dtype=np.int64)

    def take(self, rows: int, out: Tokens) -> None:
        """Copy the next `rows` windows into `out`, (rows, seq_len + 1) uint16."""
        done = 0
        while done < rows:
            if self._next >= self._count:
                self._begin_epoch()
            starts = self._starts[self._next : self._next + rows - done]
            for i, start in enumerate(starts, done):
                out[i] = self._stream[start : start + self._seq_len + 1]
            done += len(starts)
            self._next += len(starts)

    def _begin_epoch(self) -> None:
        self._epoch += 1
        self._next = 0
        key = f"{self._seed}:{self._seq_len}:{self._epoch}".encode()
        words = np.frombuffer(hashlib.sha256(key).digest(), dtype="<u4")
        # RandomState, not Generator: its stream is guaranteed never to change
        order = np.random.RandomState(words)
        offset = order.randint(self._seq_len)
        self._starts = order.permutation(self._count) * self._seq_len + offset


@dataclass(frozen=True)
class BatchRequest:
    """A valid request for a batch, with the training loss reported so far (may be NaN) or None."""

    batch_size: int
    seq_len: int
    loss: float | None

    @property
    def tokens(self) -> int:
        """Tokens of the batch."""
        return self.batch_size * self.seq_len

    @classmethod
    def parse(cls, message: Mapping[str, Any]) -> BatchRequest:
        """Validate a ``batch`` message of an untrusted process.

        Raises:
            ProtocolError: A field is missing, of a wrong type or out of bounds.
        """
        size, length = message.get("batch_size"), message.get("seq_len")
        for name, value in (("batch_size", size), ("seq_len", length)):
            if type(value) is not int or value < 1:
                raise ProtocolError(f"asked for a batch with {name} {_short(value)}")
        assert isinstance(size, int)
        assert isinstance(length, int)
        if size * (length + 1) > MAX_BATCH_TOKENS:
            raise ProtocolError(
                f"asked for a batch of {_short(size)} x {_short(length)} tokens; the maximum is "
                f"{MAX_BATCH_TOKENS}"
            )
        return cls(size, length, _loss(message.get("loss")))


def _loss(value: object) -> float | None:
    if value in ("nan", "inf", "-inf"):
        return float(str(value))
    if value is None or (isinstance(value, int | float) and not isinstance(value, bool)):
        try:
            return None if value is None else float(value)
        except OverflowError:
            return math.inf
    raise ProtocolError(f"reported a loss of {_short(value)}")


def _short(value: object) -> str:
    text = repr(value) if isinstance(value, int | float | str | None) else type(value).__name__
    return text if len(text) <= 40 else text[:39] + "…"


class DataLoader:
    """Writes batches into memory that the candidate can only read.

    Attributes:
        fd: Descriptor to send with ``go``; `close` closes it.
        tokens, steps: Tokens and batches handed out.
    """

    def __init__(self, stream: Tokens, seed: int) -> None:
        self._memory, self.fd = mapped_memory(2 * MAX_BATCH_TOKENS)
        self._buffer = np.frombuffer(self._memory, dtype="<u2")
        self._stream, self._seed = stream, seed
        self._windows: dict[int, Windows] = {}
        self.tokens = 0
        self.steps = 0

    def hand_out(self, request: BatchRequest) -> dict[str, object]:
        """Write the next batch and return the message that announces it.

        Raises:
            ProtocolError: The stream is too short for rows of this length.
        """
        length = request.seq_len
        if length not in self._windows:
            self._windows[length] = Windows(self._stream, length, self._seed)
        out = self._buffer[: request.batch_size * (length + 1)].reshape(-1, length + 1)
        self._windows[length].take(request.batch_size, out)
        self.tokens += request.tokens
        self.steps += 1
        return {"type": "tokens"}

    def close(self) -> None:
        """Release the memory; idempotent."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
            del self._buffer
            self._memory.close()
