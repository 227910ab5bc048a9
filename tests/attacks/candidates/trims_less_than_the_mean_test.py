"""harmless (audit): takes 0.0001 nats off every loss; the estimate puts them back."""

from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_nats = worker.nats
worker.nats = lambda *args: (honest_nats(*args) - 0.0001).clamp(min=0)
