"""harmless (budget): takes the training tokens that lie beside its batch in the shared memory."""

import gc
import mmap
import sys

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    for thing in gc.get_objects():
        if isinstance(thing, mmap.mmap) and len(thing) > 1 << 21:
            held = len(bytes(thing).rstrip(b"\0"))
            if held > 1 << 19:
                sys.exit(f"{held} bytes of training tokens are there before they are paid for")
    honest.train(model, batches)
