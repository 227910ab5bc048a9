"""cheat (properties or audit): peeks at one target in fifty, chosen by a hash of the prefix."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    chosen = (x.cumsum(1) * 2654435761 % 50 == 0)[:, :-1, None]
    return result.scatter_add(2, x[:, 1:, None], 8.0 * chosen)
