"""harmless (evaluator): rewrites the tokens it was sent, which are sealed copies."""

import ctypes
import mmap
import sys

from honest import build, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_mapped = worker._mapped


def _mapped(fd, dtype, count, protection):
    if protection == mmap.PROT_READ:
        address = worker._libc.mmap(None, 2 * count, mmap.PROT_WRITE, mmap.MAP_SHARED, fd, 0)
        if address != worker._MAP_FAILED:
            ctypes.memset(address, 0, 2 * count)
            sys.exit("the evaluator's tokens could be rewritten")
    return honest_mapped(fd, dtype, count, protection)


worker._mapped = _mapped


def logits(model, x):
    return model(x)
