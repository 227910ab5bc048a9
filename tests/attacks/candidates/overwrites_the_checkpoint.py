"""harmless (sandbox): while being scored, replaces its code and its weights for the audit."""

import os
import sys

from honest import build, train

__all__ = ["build", "logits", "train"]

folder = os.path.dirname(os.path.realpath(__file__))


def checkpoint():
    """Where the weights are, as the frames of the harness that called this code know."""
    frame = sys._getframe()
    while frame is not None:
        if "job" in frame.f_locals:
            return frame.f_locals["job"]["checkpoint"]
        frame = frame.f_back
    sys.exit("nobody here knows where the weights are")


def logits(model, x):
    for path in (__file__, os.path.join(folder, "honest.py"), checkpoint()):
        try:
            with open(path, "a"):
                sys.exit(f"{path} can be written")
        except OSError:
            pass
    try:
        os.mkdir(os.path.join(folder, "new"))
        sys.exit("the candidate's folder can be written")
    except OSError:
        return model(x)
