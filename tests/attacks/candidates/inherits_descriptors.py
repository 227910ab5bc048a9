"""harmless (launcher): uses descriptors that its process inherited: logs, sockets, data."""

import os
import stat
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

sockets = 0
for name in os.listdir("/proc/self/fd"):
    try:
        found = os.fstat(int(name))
    except OSError:
        continue  # the descriptor of the listing itself
    sockets += stat.S_ISSOCK(found.st_mode)
    if stat.S_ISREG(found.st_mode) or stat.S_ISDIR(found.st_mode):
        sys.exit(f"descriptor {name} is {os.readlink(f'/proc/self/fd/{name}')}")
if sockets != 1:
    sys.exit(f"{sockets} sockets are open; the evaluator's channel is one")
