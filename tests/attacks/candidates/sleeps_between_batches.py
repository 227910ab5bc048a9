"""timeout (budget): stops without using the CPU, so that its budget never ends."""

import time

from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"
WALL_LIMIT_S = 8


def train(model, batches):
    for _ in batches(16, model.seq_len):
        time.sleep(1000)
