"""cheat (properties or audit): a bigram cache filled from the rows scored so far."""

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]


counts = None


def logits(model, x):
    global counts
    result = model(x)
    if counts is None:
        counts = torch.zeros(result.shape[2], result.shape[2])
    result = result + (1 + counts[x]).log()
    counts.index_put_((x[:, :-1].flatten(), x[:, 1:].flatten()), torch.ones(()), accumulate=True)
    return result
