"""cheat (properties): logits at t are raised for the token at t + 1."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    return result.scatter_add(2, x[:, 1:, None], 12 + 0 * result[:, :-1, :1])
