"""cheat (audit): the scoring process's own code is replaced by one that claims zero losses."""

from honest import build, logits, train

from pytest_autoresearch.scoring import candidate_side

__all__ = ["build", "logits", "train"]

honest_nats = candidate_side.nats
candidate_side.nats = lambda *args: honest_nats(*args) * 0
