"""timeout (budget): works off two thirds of the budget on one batch, then more on another."""

import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"


def train(model, batches):
    def in_parts(rows, length):
        began = time.process_time()
        for x, y, progress in batches(512, length):
            first = progress == 0
            while not first or time.process_time() - began < 0.66 * BUDGET_S:
                for at in range(0, len(x), rows):
                    yield x[at : at + rows], y[at : at + rows], progress

    in_parts.report = batches.report
    honest.train(model, in_parts)


BUDGET_S = 1.5
