"""crash (limits): allocates memory without limit."""

from honest import build, train

__all__ = ["build", "logits", "train"]

MEMORY_LIMIT = 1_000_000_000
hoard = []


def logits(model, x):
    while True:
        hoard.append(bytearray(b"x") * (64 << 20))
