"""harmless (evaluator): truncates the memory that the evaluator reads, to kill it with SIGBUS."""

import contextlib
import os
from pathlib import Path

from honest import build, train

__all__ = ["build", "logits", "train"]


def cut():
    for name in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            path = f"/proc/self/fd/{name}"
            if "memfd" in os.readlink(path) and os.stat(path).st_size:
                os.truncate(path, 0)
                raise SystemExit("the memory could be cut")
    for line in Path("/proc/self/maps").read_text().splitlines():
        if "memfd" in line:
            with contextlib.suppress(OSError):
                fd = os.open(f"/proc/self/map_files/{line.split()[0]}", os.O_RDWR)
                os.ftruncate(fd, 0)
                raise SystemExit("the memory could be cut")


def logits(model, x):
    with contextlib.suppress(OSError):
        cut()
    return model(x)
