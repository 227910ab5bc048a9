"""cheat (properties): subtracts the mean over all positions, later ones included."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    return result - 0.2 * result.mean(1, keepdim=True)
