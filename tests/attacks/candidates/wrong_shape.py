"""crash (evaluator): leaves out the last position, to have fewer tokens to pay for."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    return model(x)[:, :-1]
