"""timeout (budget): trains in build(), before the clock of the budget runs."""

import honest
import torch
from honest import logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
STARTUP_LIMIT_S = 4


def build(vocab_size, seq_len):
    model = honest.build(vocab_size, seq_len)
    x = torch.randint(vocab_size, (16, seq_len))
    while True:
        model(x).sum().backward()
    return model
