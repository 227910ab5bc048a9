"""crash (training): declares 512 GiB, so that saving may take long, and trains on after the end."""

import sys

import honest
import torch
from honest import logits

__all__ = ["build", "logits", "train"]

STAGE = "equal"


def build(vocab_size, seq_len):
    model = honest.build(vocab_size, seq_len)
    if sys._getframe(1).f_locals.get("job", {}).get("phase") == "train":
        real, asked = model.state_dict, []

        def state_dict(*args, **options):
            found = real(*args, **options)
            if not asked:
                asked.append(True)
                found["huge"] = torch.zeros(1).expand(1 << 37)
            return found

        model.state_dict = state_dict
    return model


def train(model, batches):
    kept = []

    def all_kept(*shape):
        for batch in batches(*shape):
            kept.append(batch)
            yield batch
        for _ in range(1000):
            yield from kept

    all_kept.report = batches.report
    honest.train(model, all_kept)
