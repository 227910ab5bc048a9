"""crash (evaluator): every logit is not a number, so that every comparison is false."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    return model(x) * float("nan")
