"""harmless (sandbox): leaves weights for its next run in every cache; the second run looks."""

import contextlib
import os
import sys

import honest
import torch
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"
RUNS = 2
HOMES = ["/tmp", "/var/tmp", "/dev/shm", os.path.expanduser("~"), os.path.dirname(__file__)]
HOMES += [os.environ.get(k, "/tmp") for k in ("TMPDIR", "XDG_CACHE_HOME", "TRITON_CACHE_DIR")]
HOMES += [os.path.expanduser("~root"), os.path.dirname(torch.__file__), os.getcwd(), ".."]


def train(model, batches):
    for home in HOMES:
        path = os.path.join(home, "attack-weights.pt")
        if os.path.exists(path):
            sys.exit(f"weights of the run before lay in {home}")
    honest.train(model, batches)
    for home in HOMES:
        with contextlib.suppress(OSError, RuntimeError):
            torch.save(model.state_dict(), os.path.join(home, "attack-weights.pt"))
