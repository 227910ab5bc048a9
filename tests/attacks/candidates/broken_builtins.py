"""crash (evaluator): breaks Python itself beneath the scoring process's code."""

import builtins

from honest import build, logits, train

__all__ = ["build", "logits", "train"]


def broken(*args, **more):
    raise RuntimeError("LEAK")


builtins.len = builtins.getattr = builtins.isinstance = broken
