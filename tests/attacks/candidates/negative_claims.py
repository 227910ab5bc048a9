"""cheat (evaluator): claims losses below zero."""

from honest import build, logits, train

from pytest_autoresearch.scoring import candidate_side

__all__ = ["build", "logits", "train"]

honest_nats = candidate_side.nats
candidate_side.nats = lambda *args: honest_nats(*args) - 10
