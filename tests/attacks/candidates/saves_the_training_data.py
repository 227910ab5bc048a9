"""crash (training): saves the training text with the weights, to look it up when scored."""

import honest
import torch
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    seen = []

    def watched(batch_size, seq_len):
        for x, y, progress in batches(batch_size, seq_len):
            seen.append(x)
            yield x, y, progress

    watched.report = batches.report
    honest.train(model, watched)
    model.register_buffer("memory", torch.cat(seen))
