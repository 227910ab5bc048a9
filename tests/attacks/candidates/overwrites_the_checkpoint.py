"""harmless (sandbox): while being scored, replaces its code and its weights for the audit."""

import os
import sys

from honest import build, train

__all__ = ["build", "logits", "train"]

folder = os.path.dirname(os.path.realpath(__file__))


def logits(model, x):
    for path in (__file__, os.path.join(folder, "honest.py"), *sys.argv[1:]):
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
