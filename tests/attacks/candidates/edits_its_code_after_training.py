"""harmless (sandbox): trains one program and leaves another to be scored and committed."""

import os
import sys
from pathlib import Path

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    honest.train(model, batches)
    for path in (Path(__file__), Path(honest.__file__)):
        try:
            path.write_text(path.read_text())
        except OSError:
            continue
        sys.exit(f"{path} could be rewritten")
    for name in ("sitecustomize.py", "torch.py", "__pycache__"):
        try:
            os.mkdir(Path(__file__).with_name(name))
        except OSError:
            continue
        sys.exit(f"{name} could be put beside the candidate")
