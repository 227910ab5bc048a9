"""cheat (properties or audit): a temperature that depends on the clock."""

import time

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    return model(x) * (1 + 0.1 * (time.perf_counter() % 1))
