"""Confined scoring process: load the candidate's weights and answer the evaluator.

This code runs beside candidate code, which may replace any of it, so its answers are claims that
the evaluator audits. The model never receives targets.
"""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import sys
import traceback
from collections.abc import Callable, Iterator, Mapping
from types import ModuleType
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from ..forkserver.channel import Channel, PeerGone

Array = np.ndarray[Any, Any]
Compute = Callable[[Tensor], Tensor]

_libc = ctypes.CDLL(None)
_libc.mmap.restype = ctypes.c_void_p
_libc.mmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long)
_libc.munmap.argtypes = (ctypes.c_void_p, ctypes.c_size_t)
_MAP_FAILED = ctypes.c_void_p(-1).value


_MESSAGE_CHARACTERS = 400


class Refused(Exception):
    """A request failed; the message is a code of `scoring.CODES` and a detail."""


def load(candidate: ModuleType, job: Mapping[str, Any]) -> torch.nn.Module:
    """Build the candidate's model and load its checkpoint.

    Raises:
        Refused: Either failed, or a tensor is missing or left over.
    """
    from safetensors.torch import load_model

    try:
        model: torch.nn.Module = candidate.build(job["vocab_size"], job["seq_len"])
        model.eval()
    except Exception as error:
        raise _refuse("build", error) from None
    try:
        load_model(model, job["checkpoint"], strict=True)
    except Exception as error:
        raise _refuse("checkpoint", error) from None
    return model


def serve(channel: Channel, candidate: ModuleType, job: Mapping[str, Any]) -> None:
    """Load the model, send ``ready``, and answer requests until the connection closes.

    Args:
        channel: Connection to the evaluator; accepts descriptors.
        candidate: The imported train.py.
        job: The first message: ``vocab_size``, ``seq_len``, ``checkpoint``.
    """
    try:
        model = load(candidate, job)
    except Refused as refusal:
        channel.send({"type": "error", "error": str(refusal)})
        return
    device = next((p.device for p in model.parameters()), torch.device("cpu"))
    vocab_size = int(job["vocab_size"])

    def compute(x: Tensor) -> Tensor:
        try:
            logits = candidate.logits(model, x.to(device))
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:
            raise _refuse("logits", error, f" with x of shape {tuple(x.shape)}") from None
        _check_shape(logits, (*x.shape, vocab_size))
        return logits  # type: ignore[no-any-return]

    channel.send({"type": "ready"})
    while True:
        try:
            request = channel.receive()
        except PeerGone:
            return
        try:
            with torch.inference_mode():
                _answer(request, channel.take_fds(), compute, vocab_size)
            channel.send({"type": "end"})
        except Refused as refusal:
            channel.send({"type": "error", "error": str(refusal)})
        except (MemoryError, torch.OutOfMemoryError) as error:
            channel.send({"type": "error", "error": str(_refuse("memory", error))})
        except Exception as error:
            channel.send({"type": "error", "error": str(_refuse("logits", error))})


def nats(logits: Tensor, targets: Tensor) -> Tensor:
    """Compute the cross entropy of targets: logits (…, V), targets (…) to (…) float32 nats."""
    flat = functional.cross_entropy(
        logits.float().flatten(0, -2), targets.flatten(), reduction="none"
    )
    return flat.view(targets.shape)


def _answer(request: Mapping[str, Any], fds: list[int], compute: Compute, vocab: int) -> None:
    with (
        _mapped(fds[0], np.uint16, request["inputs"], mmap.PROT_READ) as tokens,
        _mapped(fds[1], np.float32, request["outputs"], mmap.PROT_WRITE) as output,
    ):
        _compute(request, tokens, output, compute, vocab)


def _compute(
    request: Mapping[str, Any], tokens: Array, output: Array, compute: Compute, vocab: int
) -> None:
    rows, batch = request["rows"], request.get("batch", request["rows"])
    if request["op"] == "claims":
        tokens, output = tokens.reshape(rows, -1), output.reshape(rows, -1)
        for start in range(0, rows, batch):
            part = tokens[start : start + batch]
            logits = compute(_batch(part[:, :-1]))
            targets = _batch(part[:, 1:]).to(logits.device)
            output[start : start + batch] = nats(logits, targets).cpu()
    elif request["op"] == "audit":
        tokens, output = tokens.reshape(rows, -1), output.reshape(rows, vocab)
        positions = torch.tensor(request["positions"])
        for start in range(0, rows, batch):
            logits = compute(_batch(tokens[start : start + batch]))
            which = positions[start : start + batch].to(logits.device)
            picked = logits[torch.arange(len(which), device=logits.device), which]
            output[start : start + batch] = picked.float().cpu()
    elif request["op"] == "logits":
        length = request["length"]
        logits = compute(_batch(tokens.reshape(rows, length)))
        output.reshape(rows, length, vocab)[:] = logits.float().cpu()
    else:
        raise Refused("request")


def _batch(tokens: np.ndarray[Any, Any]) -> Tensor:
    return torch.from_numpy(tokens.astype(np.int64))


def _check_shape(logits: object, expected: tuple[int, ...]) -> None:
    if not isinstance(logits, Tensor) or not logits.is_floating_point():
        raise Refused(f"shape: it is {getattr(logits, 'dtype', type(logits).__name__)}")
    if tuple(logits.shape) != expected:
        raise Refused(f"shape: it is {tuple(logits.shape)} instead of {expected}")


@contextlib.contextmanager
def _mapped(fd: int, dtype: type[np.generic], count: int, protection: int) -> Iterator[Array]:
    """Map shared memory; `mmap.mmap` would need calls that a sealed process cannot make."""
    size = count * np.dtype(dtype).itemsize
    address = _libc.mmap(None, size, protection | mmap.PROT_READ, mmap.MAP_SHARED, fd, 0)
    os.close(fd)
    if address == _MAP_FAILED:
        raise MemoryError("shared memory cannot be mapped")
    try:
        memory: Any = (ctypes.c_char * size).from_address(address)
        yield np.frombuffer(memory, dtype)
    finally:
        _libc.munmap(address, size)


def _refuse(code: str, error: BaseException, where: str = "") -> Refused:
    return Refused(f"{code}: {describe(error)}{where}")


def describe(error: BaseException) -> str:
    """Return type and message of an error on one line, and the candidate's line that raised it."""
    text = " ".join(str(error).split())[:_MESSAGE_CHARACTERS]
    text = f"{type(error).__name__}: {text}".removesuffix(": ")
    entry = getattr(sys.modules.get("train"), "__file__", None)
    if not entry:
        return text
    folder = os.path.join(os.path.dirname(entry), "")
    # without reading the source: a sealed process cannot open files
    lines = [(f.f_code.co_filename, at) for f, at in traceback.walk_tb(error.__traceback__)]
    places = [
        f"{name.removeprefix(folder)}, line {at}" for name, at in lines if name.startswith(folder)
    ]
    return f"{text} ({places[-1]})" if places else text
