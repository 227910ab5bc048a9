"""cheat (audit): a thread keeps writing zeros over the claims after they were handed in."""

import ctypes
import mmap
import sys
import threading

from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_mapped = worker._mapped


def keep_zero(address, size):
    while True:
        ctypes.memset(address, 0, size)


def _mapped(fd, dtype, count, protection):
    claims = sys._getframe(1).f_locals["request"]["op"] == "claims"
    if protection == mmap.PROT_WRITE and claims:
        address = worker._libc.mmap(None, 4 * count, protection, mmap.MAP_SHARED, fd, 0)
        threading.Thread(target=keep_zero, args=(address, 4 * count), daemon=True).start()
    return honest_mapped(fd, dtype, count, protection)


worker._mapped = _mapped
