"""timeout (budget): uses the CPU in a destructor when train() has returned."""

import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"


class Late:
    def __del__(self):
        began = time.process_time()
        while time.process_time() - began < 5:
            pass


def train(model, batches):
    late = Late()
    honest.train(model, batches)
    del late
