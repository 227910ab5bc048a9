"""harmless (launcher): prints fifty megabytes."""

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    for _ in range(50):
        print("x" * (1 << 20))
    honest.train(model, batches)
