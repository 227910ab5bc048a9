"""harmless (evaluator): prints the validation text while it is scored, for the next prompt."""

import sys

from honest import build, train

__all__ = ["build", "logits", "train"]

STAGE = "run"


def logits(model, x):
    print("LEAK", x.tolist(), flush=True)
    print("LEAK", file=sys.stderr, flush=True)
    return model(x)
