"""cheat (audit): takes three nats off the very few losses above eight."""

from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_nats = worker.nats


def nats(*args):
    losses = honest_nats(*args)
    return losses.where(losses < 8, losses - 3)


worker.nats = nats
