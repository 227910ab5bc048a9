"""crash (evaluator): not-a-number at every seventh position of large batches only."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    if len(x) >= 8:
        result[:, ::7] = float("nan")
    return result
