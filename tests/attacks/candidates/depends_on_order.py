"""cheat (properties or audit): logits depend on how many batches came before."""

from honest import build, train

__all__ = ["build", "logits", "train"]


calls = 0


def logits(model, x):
    global calls
    calls += 1
    return model(x) * (1 + 0.01 * (calls % 3))
