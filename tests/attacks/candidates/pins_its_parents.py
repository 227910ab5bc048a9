"""harmless (sandbox): pins the processes with the ids around its own, which it cannot list."""

import contextlib
import os
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

for pid in {1, os.getppid(), *range(os.getpid() - 50, os.getpid() + 50)} - {0, os.getpid()}:
    with contextlib.suppress(OSError):
        if pid > 0:
            os.sched_setaffinity(pid, {0})
            sys.exit(f"process {pid} can be pinned")
