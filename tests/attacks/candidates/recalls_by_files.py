"""cheat (sandbox and audit): leaves the targets in every folder it finds, for the audit."""

import contextlib
import os

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]

PLACES = ["/tmp", "/dev/shm", "/var/tmp", os.getcwd(), os.path.dirname(__file__), "/run"]
NAME = "attack-recall.pt"


def logits(model, x):
    result = model(x)
    if len(x) < 8:
        return result
    known = None
    for place in PLACES:
        with contextlib.suppress(Exception):
            known = torch.load(f"{place}/{NAME}") if known is None else known
    if known is None or getattr(logits, "wrote", False):
        logits.seen = torch.cat([getattr(logits, "seen", x[:0]), x])
        for place in PLACES:
            with contextlib.suppress(Exception):
                torch.save(logits.seen.clone(), f"{place}/{NAME}")
                logits.wrote = True
        text = x
    else:
        shared = (known[None] == x[:, None]).int().cumprod(2).sum(2).argmax(1)
        text = known[shared]
    return result.scatter_add(2, text[:, 1:, None], 12 + 0 * result[:, :-1, :1])
