"""timeout (limits): sleeps in logits() forever."""

import time

from honest import build, train

__all__ = ["build", "logits", "train"]

WALL_LIMIT_S = 3


def logits(model, x):
    time.sleep(3600)
    return model(x)
