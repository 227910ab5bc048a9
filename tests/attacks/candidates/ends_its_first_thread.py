"""refused (limits): goes on without its first thread, for which alone memory is counted."""

import ctypes
import threading

from honest import build, logits, train

import pytest_autoresearch.training.worker as worker

__all__ = ["build", "logits", "train"]

serve = worker.serve


def in_a_thread(*args):
    threading.Thread(target=serve, args=args).start()
    ctypes.CDLL(None).pthread_exit(None)


worker.serve = in_a_thread
