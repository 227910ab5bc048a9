"""cheat (properties): normalises each logit over the rows of the batch."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    return result - 0.2 * result.mean(0, keepdim=True)
