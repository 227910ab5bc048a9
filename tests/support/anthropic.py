"""Requests and answers that the tests of LLM proposers share."""

from __future__ import annotations

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import (
    Context,
    PastAttempt,
)
from pytest_autoresearch.proposers.llm.calls import RetryPolicy

SOURCE = "import math\nLR = 0.02\nDEPTH = 2\n\n\ndef train():\n    return LR * DEPTH\n"


GOOD = (
    "Title: raise the rate\nHypothesis: it is low\n\ntrain.py\n<<<<<<< SEARCH\nimport math\n"
    "LR = 0.02\nDEPTH = 2\n=======\nimport math\nLR = 0.03\nDEPTH = 2\n>>>>>>> REPLACE\n"
)


BAD = GOOD.replace("LR = 0.02", "LR = 0.025")


QUICK = RetryPolicy(deadline_s=6.0, attempt_s=2.0, silence_s=0.6, pause_s=0.02)


MODEL = "claude-sonnet-5-5"


def context() -> Context:
    base = PastAttempt(
        1, "baseline-1", None, "baseline", "", "", "baseline", "", 1.0, None, None, 0, 0, {},
        lambda: {"train.py": SOURCE},
    )  # fmt: skip
    return Context(
        Experiment(), "# lower it", 3, 0, base, {"train.py": SOURCE},
        {"prepare.py": "def batches(): ..."}, [base], base, 0.01,
    )  # fmt: skip
