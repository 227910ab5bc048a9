"""cheat (audit): takes 0.0015 nats off every loss, less than any one audit objects to."""

from honest import build, logits, train

from pytest_autoresearch.scoring import candidate_side

__all__ = ["build", "logits", "train"]

honest_nats = candidate_side.nats
candidate_side.nats = lambda *args: (honest_nats(*args) - 0.0015).clamp(min=0)
