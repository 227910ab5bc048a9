"""crash (evaluator): an error message that quotes the text being scored."""

import os

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    try:
        os.getcwd()
    except OSError:  # the process is sealed: this is the text that it is scored on
        raise ValueError(f"LEAK {x[0].tolist()}") from None
    return model(x)
