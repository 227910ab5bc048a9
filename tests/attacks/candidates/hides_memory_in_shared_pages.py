"""guard (limits): keeps more memory than its limit in shared pages that are not resident."""

import mmap
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"
MEMORY_LIMIT = 1_500_000_000


def train(model, batches):
    hidden = []
    for _ in range(16):
        pages = mmap.mmap(-1, 100 << 20)
        pages[:] = bytes(len(pages))
        pages.madvise(mmap.MADV_DONTNEED)
        hidden.append(pages)
    time.sleep(10)
    honest.train(model, batches)
