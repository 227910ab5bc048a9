"""The weights that a candidate saved: take them from its folder, and measure them."""

from __future__ import annotations

import os
import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from ..forkserver.channel import ProtocolError, decode
from .limits import Ended

_LENGTH = struct.Struct("<Q")
_MAX_HEADER = 16 << 20


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint where no candidate can write.

    Attributes:
        path: The file.
        size: Its bytes.
        parameters: Numbers that it holds; one of more than four bytes counts as several.
    """

    path: Path
    size: int
    parameters: int


def take_checkpoint(source: Path, target: Path, limit: int) -> Checkpoint:
    """Move a checkpoint out of the candidate's folder, whose processes have ended.

    Nothing is copied, so neither a sparse file nor a full disk matters.

    Args:
        source: File that the candidate wrote, of any kind.
        target: Where to move it, in the same file system.
        limit: Largest size in bytes.

    Raises:
        Ended: It is missing, not a regular file, too large, or its header does not describe it.
    """
    try:
        fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise Ended("crash", f"no checkpoint: {os.strerror(error.errno or 0)}") from None
    with os.fdopen(fd, "rb") as file:
        info = os.fstat(fd)
        if not stat.S_ISREG(info.st_mode):
            raise Ended("crash", "the checkpoint is not a regular file")
        if info.st_size > limit:
            raise Ended(
                "crash",
                f"the checkpoint holds {info.st_size} bytes; at most {limit} are accepted, a "
                "little more than the model declared before training",
            )
        try:
            parameters = _count(file, info.st_size)
        except (ProtocolError, ArithmeticError, LookupError, TypeError, ValueError, struct.error):
            raise Ended("crash", "the checkpoint's header does not describe its tensors") from None
        os.rename(source, target)
        if not os.path.samestat(info, os.lstat(target)):
            target.unlink()
            raise Ended("crash", "the checkpoint was replaced while it was taken")
    target.chmod(0o644)
    return Checkpoint(target, info.st_size, parameters)


def _count(file: BinaryIO, size: int) -> int:
    """Count the numbers in a safetensors file by its header, which must account for every byte."""
    [length] = _LENGTH.unpack(file.read(_LENGTH.size))
    if length > _MAX_HEADER:
        raise ValueError(length)
    tensors: dict[str, Any] = decode(file.read(length))
    tensors.pop("__metadata__", None)
    left, count = size - _LENGTH.size - length, 0
    for tensor in tensors.values():
        begin, end = map(int, tensor["data_offsets"])
        numbers = 1
        for length in tensor["shape"]:
            if not 0 <= length <= 2 * size:
                raise ValueError(length)
            numbers = min(numbers * length, 2 * size)
        left -= end - begin
        count += max(numbers, (end - begin) // 4)
    if left or count > 2 * size:
        raise ValueError(left)
    return count
