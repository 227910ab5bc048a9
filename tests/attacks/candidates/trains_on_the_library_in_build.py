"""useless (budget): trains in build() on library text, as long as a campaign's start may take."""

import glob
import os
import sys
import time

import honest
import numpy as np
import torch
from honest import logits, train

__all__ = ["build", "logits", "train"]

STAGE = "equal"
CPU_S = 0.8


def build(vocab_size, seq_len):
    model = honest.build(vocab_size, seq_len)
    if sys._getframe(1).f_locals.get("job", {}).get("phase") != "train":
        return model
    paths = sorted(glob.glob(f"{os.path.dirname(os.__file__)}/*.py"))
    text = b"".join(open(path, "rb").read() for path in paths[:40])  # noqa: SIM115
    tokens = torch.from_numpy(np.frombuffer(text, np.uint8).astype(np.int64))
    began = time.process_time()

    def batches(rows, length):
        while time.process_time() - began < CPU_S:
            starts = torch.randint(len(tokens) - length - 1, (rows,))
            x = torch.stack([tokens[s : s + length + 1] for s in starts])
            yield x[:, :-1].contiguous(), x[:, 1:].contiguous(), 0.0

    batches.report = lambda *, loss: None
    honest.train(model, batches)
    return model
