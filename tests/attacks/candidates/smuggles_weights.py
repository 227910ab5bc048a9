"""invalid (checks): carries pretrained weights in its source as a string."""

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "checks"
PADDING = 400_000  # characters of weights that the rehearsal writes into the next line
WEIGHTS = ""
