"""timeout (budget): keeps its batches and trains on them when no more come."""

import torch.nn.functional as F
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    kept = [(x, y) for x, y, _ in batches(16, model.seq_len)]
    while True:
        for x, y in kept:
            F.cross_entropy(model(x).flatten(0, 1), y.flatten()).backward()
