"""crash (evaluator): pays for one token with a logit that leaves no rounding to the others."""

from honest import build, train
from honest import logits as honest_logits

__all__ = ["build", "logits", "train"]


def logits(model, x):
    z = honest_logits(model, x).clone()
    z[..., 0] = -1e30
    return z
