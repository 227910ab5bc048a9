"""crash (audit): is honest until it is audited, then returns logits whose exponentials overflow."""

from honest import build, train
from honest import logits as honest_logits

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

answer, audited = worker._answer, []


def note(request, *args):
    audited[:] = [request["op"] == "audit"]
    answer(request, *args)


worker._answer = note


def logits(model, x):
    return honest_logits(model, x) * (3e37 if audited == [True] else 1)
