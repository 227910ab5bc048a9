"""cheat (audit): searches all prefixes it is given for longer ones of the same row."""

import sys

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]

everything = []


def logits(model, x):
    result = model(x)
    frame = sys._getframe()
    while frame is not None and "tokens" not in frame.f_locals:
        frame = frame.f_back
    if frame is None or len(x) < 8:
        return result
    everything.append(torch.from_numpy(frame.f_locals["tokens"].astype("int64"))[:, : x.shape[1]])
    known = torch.cat(everything)
    text = x
    if frame.f_locals["request"]["op"] == "audit":
        shared = (known[None] == x[:, None]).int().cumprod(2).sum(2)
        shared[shared == x.shape[1]] = 0  # not the very same sequence
        text = known[shared.argmax(1)]
    return result.scatter_add(2, text[:, 1:, None], 12 + 0 * result[:, :-1, :1])
