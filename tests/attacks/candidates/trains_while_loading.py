"""timeout (limits): trains on its own constants in build(), where no clock of the budget runs."""

from pathlib import Path

import honest
import torch
import torch.nn.functional as F
from honest import logits, train

__all__ = ["build", "logits", "train"]

CPU_LIMIT_S = 4


def build(vocab_size, seq_len):
    model = honest.build(vocab_size, seq_len)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    text = torch.tensor(list(Path(__file__).read_bytes()[:512])).view(8, 64)
    while True:
        loss = F.cross_entropy(model(text[:, :-1]).flatten(0, 1), text[:, 1:].flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
