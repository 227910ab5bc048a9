"""cheat (properties): attention without its causal mask."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    model.causal = False
    return model(x)
