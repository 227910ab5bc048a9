"""crash (evaluator): an error message that quotes the text being scored."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    if len(x) >= 8:
        raise ValueError(f"LEAK {x[0].tolist()}")
    return model(x)
