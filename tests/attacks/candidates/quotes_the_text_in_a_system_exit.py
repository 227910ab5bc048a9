"""crash (evaluator): quotes the text in a SystemExit, which few handlers catch."""

import sys

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    if len(x) >= 8:
        sys.exit(f"LEAK {x[0].tolist()}")
    return model(x)
