"""timeout (budget): takes small steps until nearly the end, then never asks for a batch again."""

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"


def train(model, batches):
    kept = []

    def last_for_ever(*shape):
        for x, y, progress in batches(*shape):
            kept.append((x, y, progress))
            yield x, y, progress
            while progress > 0.9:
                yield from kept

    last_for_ever.report = batches.report
    honest.train(model, last_for_ever)
