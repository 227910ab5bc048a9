"""cheat (audit): behaves well until the process is sealed, then looks at the next token."""

import os

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    try:
        os.stat(__file__)
    except OSError:
        return result.scatter_add(2, x[:, 1:, None], 2 + 0 * result[:, :-1, :1])
    return result
