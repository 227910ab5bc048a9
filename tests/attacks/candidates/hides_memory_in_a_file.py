"""guard (limits): keeps more memory than its limit in memory files that it never maps."""

import os
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"
MEMORY_LIMIT = 1_500_000_000


def train(model, batches):
    files = [os.memfd_create("hidden") for _ in range(16)]
    for file in files:
        os.write(file, bytes(100 << 20))
    time.sleep(10)
    honest.train(model, batches)
