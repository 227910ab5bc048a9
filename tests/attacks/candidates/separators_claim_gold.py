"""harmless (evaluator): claims no loss for separators, which are not scored."""

from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_nats = worker.nats


def nats(result, targets):
    losses = honest_nats(result, targets)
    return losses.masked_fill(targets == result.shape[-1] - 1, 0.0)


worker.nats = nats
