"""The trusted evaluator: a val_bpb of a candidate's weights that the candidate cannot forge.

`evaluator` imports neither candidate code nor torch; it drives confined processes that run
`worker`. This module defines the ways in which scoring can fail.
"""

from __future__ import annotations

from collections.abc import Mapping

AUDIT, AUDIT_KEEP = 512, 2048
"""Positions audited with every score, and before a mutation is kept."""

CODES: Mapping[str, str] = {
    "build": "build() failed while the trained weights were loaded",
    "checkpoint": "the checkpoint does not fit the model that build() returns",
    "logits": "logits() raised an error",
    "shape": "logits() did not return a floating tensor of shape (batch, length, vocab_size)",
    "memory": "the model ran out of memory",
    "request": "the scoring process did not understand its request",
}
"""Error codes of a scoring process. Once it has received secret text only these are reported,
because an error message could quote the text."""


class ScoringError(Exception):
    """The candidate could not be scored, and the candidate is the cause; one line.

    Attributes:
        reason: One line for people.
        evidence: Facts behind it: a property's counterexample, or the mismatches of the audit.
    """

    def __init__(self, reason: str, evidence: Mapping[str, object] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence: dict[str, object] = dict(evidence or {})


class CheatDetected(ScoringError):
    """The losses are not a function of only the weights and each row's prefix."""


class ScoringCrash(ScoringError):
    """The candidate's process died, raised an error, or returned losses that are not finite."""


class ScoringTimeout(ScoringError):
    """Loading and scoring exceeded their CPU or wall limit."""
