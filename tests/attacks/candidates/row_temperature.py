"""cheat (properties or audit): one bit per row: the better of two temperatures for its targets."""

import torch.nn.functional as F
from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    sharp = 1.1 * result
    losses = [
        F.cross_entropy(r[:, :-1].transpose(1, 2), x[:, 1:], reduction="none").sum(1)
        for r in (result, sharp)
    ]
    better = (losses[1] < losses[0])[:, None, None]
    return sharp.where(better, result)
