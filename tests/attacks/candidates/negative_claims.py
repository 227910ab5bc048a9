"""cheat (evaluator): claims losses below zero."""

from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_nats = worker.nats
worker.nats = lambda *args: honest_nats(*args) - 10
