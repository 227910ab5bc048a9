"""harmless (audit): takes 0.0001 nats off every loss; the estimate puts them back."""

from honest import build, logits, train

from pytest_autoresearch.scoring import candidate_side

__all__ = ["build", "logits", "train"]

honest_nats = candidate_side.nats
candidate_side.nats = lambda *args: (honest_nats(*args) - 0.0001).clamp(min=0)
