"""crash (budget): asks for half of the budget as one batch, to go through it many times."""

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"


def train(model, batches):
    def in_epochs(rows, length):
        for x, y, progress in batches(1920, length):
            for at in [*range(0, len(x), rows)] * 2:
                yield x[at : at + rows], y[at : at + rows], progress

    in_epochs.report = batches.report
    honest.train(model, in_epochs)
