"""crash (evaluator): ends with exit status 0 in the middle of scoring."""

import os

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    os._exit(0)
