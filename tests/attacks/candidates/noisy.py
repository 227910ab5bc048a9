"""cheat (properties): dropout left on."""

import torch.nn.functional as F
from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    return F.dropout(model(x), 0.05, training=True)
