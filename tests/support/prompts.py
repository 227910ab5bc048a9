"""Contexts that the tests of prompts share."""

from __future__ import annotations

from dataclasses import replace

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import Context, PastAttempt

SOURCE = "LR = 0.02\n"


def attempt(number: int, verdict: str = "discard", **fields: object) -> PastAttempt:
    values = {
        "parent": 1, "title": f"idea {number}", "hypothesis": "why", "proposer": "anthropic",
        "reason": "", "score": 1.0, "gain": -0.01, "gain_sigma": -1.1, "lines_added": 1,
        "lines_removed": 1, "meta": {}, "read_files": lambda: {"train.py": SOURCE},
    } | fields  # fmt: skip
    return PastAttempt(attempt_id=number, name=f"mutation-{number:04d}", verdict=verdict, **values)


BASE = attempt(1, "baseline", parent=None, title="baseline", gain=None, gain_sigma=None, score=1.0)


def context(*history: PastAttempt, **fields: object) -> Context:
    made = Context(
        Experiment(), "# lower it", 9, 0, BASE, {"train.py": SOURCE}, {"prepare.py": "X = 1"},
        [BASE, *history], BASE, 0.01,
    )  # fmt: skip
    return replace(made, **fields)
