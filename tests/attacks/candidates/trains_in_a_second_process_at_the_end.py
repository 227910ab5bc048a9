"""timeout (budget): at the end of the budget a second process trains on while the first saves."""

import os
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"


def train(model, batches):
    honest.train(model, batches)
    if os.fork() == 0:
        began = time.process_time()
        while time.process_time() - began < 5:
            pass
        os._exit(0)
    os.wait()
