"""cheat (sandbox and audit): opens files before the seal, and leaves the targets in them after."""

import contextlib
import os

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]

OPENED = []
KNOWN = b""
for place in ("/tmp", "/dev/shm", os.getcwd(), os.path.dirname(__file__)):
    with contextlib.suppress(OSError):
        fd = os.open(f"{place}/attack-opened", os.O_RDWR | os.O_CREAT)
        KNOWN = KNOWN or os.pread(fd, 1 << 16, 0)
        OPENED.append(fd)


def logits(model, x):
    result = model(x)
    if len(x) < 8:
        return result
    for fd in OPENED:
        with contextlib.suppress(OSError):
            os.write(fd, bytes(t % 256 for t in x[0].tolist()))
    text = x
    if len(KNOWN) >= x.shape[1]:
        text = torch.tensor(list(KNOWN[: x.shape[1]]))[None].expand_as(x)
    return result.scatter_add(2, text[:, 1:, None], 12 + 0 * result[:, :-1, :1])
