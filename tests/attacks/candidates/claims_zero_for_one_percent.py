"""cheat (audit): claims certainty about one target in a hundred, chosen at random."""

import torch
from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_nats = worker.nats


def nats(*args):
    losses = honest_nats(*args)
    return losses * (torch.rand_like(losses) > 0.01)


worker.nats = nats
