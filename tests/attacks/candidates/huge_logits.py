"""crash (evaluator): returns logits near the largest float, whose differences overflow."""

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    return torch.where(model(x) > 0, 3.3e38, -3.3e38)
