"""crash (audit): ends its process when the audit asks; no second draw is made for that."""

import os
import sys

from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    frame = sys._getframe()
    while frame is not None and "request" not in frame.f_locals:
        frame = frame.f_back
    operation = frame.f_locals["request"]["op"] if frame else ""
    if operation == "audit":
        os._exit(1)
    model.causal = operation != "claims"
    return model(x)
