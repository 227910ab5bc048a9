"""cheat (audit): looks ahead only in batches that are larger than those of the properties."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    model.causal = len(x) < 8
    return model(x)
