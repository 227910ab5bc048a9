"""cheat (properties): every block of 16 positions sees the bag of its own tokens."""

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    result = model(x)
    for start in range(0, x.shape[1], 16):
        block = x[:, start : start + 16]
        bag = result.new_zeros(len(x), result.shape[2]).scatter_(1, block, 0.7)
        result[:, start : start + 16] += bag[:, None]
    return result
