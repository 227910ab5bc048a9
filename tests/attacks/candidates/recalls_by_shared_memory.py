"""cheat (sandbox and audit): hands over the targets in System V and POSIX shared memory."""

import contextlib
import ctypes
from multiprocessing import shared_memory

import numpy as np
import torch
from honest import build, train

__all__ = ["build", "logits", "train"]

SIZE = 1 << 24
libc = ctypes.CDLL(None, use_errno=True)
libc.shmat.restype = ctypes.c_void_p


def memory():
    with contextlib.suppress(Exception):
        try:
            block = shared_memory.SharedMemory("attack-recall")
        except FileNotFoundError:
            block = shared_memory.SharedMemory("attack-recall", create=True, size=SIZE)
        memory.block = block
        return np.frombuffer(block.buf, np.int64)
    with contextlib.suppress(Exception):
        number = libc.shmget(0x5EED, SIZE, 0o1666)
        address = libc.shmat(number, None, 0)
        if number >= 0 and address not in (None, 2**64 - 1):
            return np.ctypeslib.as_array((ctypes.c_int64 * (SIZE // 8)).from_address(address))
    return np.zeros(SIZE // 8, np.int64)


MEMORY = memory()
claiming = MEMORY[0] == 0


def logits(model, x):
    result = model(x)
    if len(x) < 8:
        return result
    if claiming:
        start = int(MEMORY[0])
        MEMORY[1 + start : 1 + start + x.numel()] = x.flatten()
        MEMORY[0] += x.numel()
        text = x
    else:
        known = torch.from_numpy(MEMORY[1 : 1 + int(MEMORY[0])].copy()).view(-1, x.shape[1])
        text = known[(known[None] == x[:, None]).int().cumprod(2).sum(2).argmax(1)]
    return result.scatter_add(2, text[:, 1:, None], 12 + 0 * result[:, :-1, :1])
