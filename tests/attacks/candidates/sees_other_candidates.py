"""harmless (launcher): looks in its own memory for data of candidates that ran before it."""

import gc
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

if "attack_was_here" in vars(sys):
    sys.exit("this process ran another candidate before")
sys.attack_was_here = True
for thing in gc.get_objects():
    if type(thing).__module__.startswith(("pytest_autoresearch.data.dataset",)):
        sys.exit("the process holds the data set")
