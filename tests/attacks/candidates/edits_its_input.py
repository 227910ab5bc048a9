"""harmless (evaluator): rewrites the tokens it was sent, which are sealed copies."""

import contextlib
import mmap
import sys

from honest import build, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_map = worker._map


def _map(fd, dtype, *, write):
    if not write:
        with contextlib.suppress(OSError):
            memory = mmap.mmap(fd, 0, access=mmap.ACCESS_WRITE)
            memory[:] = bytes(len(memory))
            sys.exit("the evaluator's tokens could be rewritten")
    return honest_map(fd, dtype, write=write)


worker._map = _map


def logits(model, x):
    return model(x)
