"""The trusted evaluator: val_bpb of a candidate's weights that the candidate cannot forge.

`evaluator` never imports candidate code nor torch; it drives confined processes that run
`candidate_side`. Here stand only the ways in which scoring can fail.
"""

from __future__ import annotations

from collections.abc import Mapping

CODES: Mapping[str, str] = {
    "build": "build() failed when the trained weights were to be loaded",
    "checkpoint": "the checkpoint does not fit the model that build() returns",
    "logits": "logits() raised an error",
    "shape": "logits() did not return a floating tensor of shape (batch, length, vocab_size)",
    "memory": "the model ran out of memory",
    "request": "the scoring process did not understand its request",
}
"""What a scoring process may report. Nothing else of its words is ever repeated once it has seen
text that candidates must not learn: an error message can carry a quotation."""


class ScoringError(Exception):
    """No score, and the candidate is the reason; one line for people."""

    def __init__(self, reason: str, evidence: Mapping[str, object] | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.evidence: dict[str, object] = dict(evidence or {})


class CheatDetected(ScoringError):
    """The score would not be a function of the weights and of each row's prefix alone.

    Attributes:
        reason: One line for people.
        evidence: What it rests on: a property's counterexample, or the mismatches of the audit.
    """


class ScoringCrash(ScoringError):
    """The candidate's model could not be scored: it died, raised, or gave no finite losses."""


class ScoringTimeout(ScoringError):
    """Loading and scoring took more CPU or wall seconds than they may."""
