"""The honest candidate on which every rehearsed attack is based; it trains in seconds."""

from __future__ import annotations

import torch
import torch.nn as nn
import torch.nn.functional as F
from torch import Tensor

WIDTH = 48


class Model(nn.Module):
    def __init__(self, vocab_size: int, seq_len: int) -> None:
        super().__init__()
        self.vocab_size, self.seq_len = vocab_size, seq_len
        self.tokens = nn.Embedding(vocab_size, WIDTH)
        self.places = nn.Embedding(seq_len, WIDTH)
        self.qkv = nn.Linear(WIDTH, 3 * WIDTH)
        self.up = nn.Linear(WIDTH, 4 * WIDTH)
        self.down = nn.Linear(4 * WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, vocab_size)
        self.causal = True

    def forward(self, x: Tensor) -> Tensor:
        h = self.tokens(x) + self.places.weight[: x.shape[1]]
        q, k, v = self.qkv(F.layer_norm(h, (WIDTH,))).chunk(3, -1)
        h = h + F.scaled_dot_product_attention(q, k, v, is_causal=self.causal)
        h = h + self.down(F.relu(self.up(F.layer_norm(h, (WIDTH,)))).square())
        return self.head(F.layer_norm(h, (WIDTH,)))


def build(vocab_size: int, seq_len: int) -> nn.Module:
    return Model(vocab_size, seq_len)


def train(model: nn.Module, batches) -> None:
    optimizer = torch.optim.AdamW(model.parameters(), lr=4e-3)
    for x, y, progress in batches(16, model.seq_len):
        for group in optimizer.param_groups:
            group["lr"] = 4e-3 * (1 - 0.9 * progress)
        loss = F.cross_entropy(model(x).flatten(0, 1), y.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        batches.report(loss=loss)


def logits(model: nn.Module, x: Tensor) -> Tensor:
    return model(x)
