"""crash (evaluator): says that the claims are ready before it has written any."""

from honest import build, logits, train

from pytest_autoresearch.scoring import worker

__all__ = ["build", "logits", "train"]

honest_answer = worker._answer


def _answer(request, *args):
    if request["op"] != "claims":
        honest_answer(request, *args)


worker._answer = _answer
