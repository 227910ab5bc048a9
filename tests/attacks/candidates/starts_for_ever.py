"""timeout (budget): trains in build() for longer than the whole budget."""

import honest
import torch
from honest import logits, train

__all__ = ["build", "logits", "train"]

STAGE = "equal"


def build(vocab_size, seq_len):
    model = honest.build(vocab_size, seq_len)
    x = torch.randint(vocab_size, (16, seq_len))
    while True:
        model(x).sum().backward()
