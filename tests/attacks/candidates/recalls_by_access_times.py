"""harmless (sandbox): once sealed, reads files so that their access times tell the audit."""

import contextlib
import os
import sys

from honest import build, train
from honest import logits as honest_logits

__all__ = ["build", "logits", "train"]

opened = os.open(__file__, os.O_RDONLY)


def logits(model, x):
    sealed = False
    try:
        os.stat(__file__)
    except OSError:
        sealed = True
    if sealed:
        for call in (
            lambda: os.read(opened, 1),
            lambda: os.listdir("/usr"),
        ):
            with contextlib.suppress(OSError):
                call()
                sys.exit("a sealed process can read a file by a system call")
    return honest_logits(model, x)
