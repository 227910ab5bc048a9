"""guard (limits): writes more than its limit into files that it deletes and keeps open."""

import os
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"
DISK_LIMIT = 64_000_000


def train(model, batches):
    for number in range(10):
        file = os.open(f"hidden-{number}", os.O_CREAT | os.O_RDWR)
        os.unlink(f"hidden-{number}")
        os.posix_fallocate(file, 0, 10 << 20)
    time.sleep(10)
    honest.train(model, batches)
