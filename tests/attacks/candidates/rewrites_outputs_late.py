"""cheat (audit): a thread keeps writing zeros over the claims after they were handed in."""

import sys
import threading

from honest import build, train

__all__ = ["build", "logits", "train"]


def keep_zero(output):
    while True:
        output[:] = 0


def logits(model, x):
    frame = sys._getframe()
    while frame is not None and "output" not in frame.f_locals:
        frame = frame.f_back
    if frame is not None and frame.f_locals["request"]["op"] == "claims" and len(x) >= 8:
        threading.Thread(target=keep_zero, args=[frame.f_locals["output"]], daemon=True).start()
    return model(x)
