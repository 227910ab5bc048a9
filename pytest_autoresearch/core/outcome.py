"""What an attempt came to, as the test body sees it: scores that compare by direction, or a reason."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .experiment import Direction, Metric

Verdict = Literal[
    "keep", "discard", "crash", "timeout", "invalid", "duplicate", "guard", "cheat", "baseline"
]

LETTERS: dict[str, tuple[str, str, str]] = {
    "keep": ("kept", "K", "green"),
    "discard": ("discarded", "D", "yellow"),
    "crash": ("crashed", "C", "red"),
    "timeout": ("timed out", "T", "red"),
    "invalid": ("invalid", "I", "purple"),
    "duplicate": ("duplicates", "=", "blue"),
    "guard": ("guarded", "G", "purple"),
    "cheat": ("cheats", "!", "red"),
    "baseline": ("calibrated", "B", "cyan"),
}
"""Verdict to (word in the summary, letter, terminal colour)."""


class NoScore(Exception):
    """The trial has no score to compare; an expected outcome of research, not a defect.

    Attributes:
        verdict: Why, as the ledger records it.
        reason: One line for people.
    """

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(f"{verdict}: {reason}")
        self.verdict = verdict
        self.reason = reason


class Score(float):
    """A metric's value whose ``<`` means *better than*, whichever direction is better.

    ``assert trial.val_bpb < best`` is the whole verdict, so the comparison carries the
    direction of the metric: for ``direction="max"``, 0.9 ``<`` 0.8.
    """

    direction: Direction
    explanation: str

    def __new__(cls, value: float, direction: Direction = "min", explanation: str = "") -> Score:
        """Wrap `value`; `explanation` says why a bar stands where it stands."""
        score = super().__new__(cls, value)
        score.direction = direction
        score.explanation = explanation
        return score

    def __lt__(self, other: float) -> bool:
        return float(self) < float(other) if self.direction == "min" else float(self) > float(other)

    def __gt__(self, other: float) -> bool:
        return float(self) > float(other) if self.direction == "min" else float(self) < float(other)

    def __le__(self, other: float) -> bool:
        return self < other or float(self) == float(other)

    def __ge__(self, other: float) -> bool:
        return self > other or float(self) == float(other)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, int | float) and float(self) == float(other)

    def __hash__(self) -> int:
        return hash(float(self))

    def __repr__(self) -> str:
        return f"{float(self):.6f}"


@dataclass(frozen=True)
class Trial:
    """What the `trial` fixture hands to the test body.

    Reading the metric by its name (``trial.val_bpb``) or as ``trial.score`` gives the mean over
    replicates as a `Score`.

    Attributes:
        metric: The experiment's metric.
        attempt_id: Ledger row behind it.
        value: Mean over replicates, or None when there is no score.
        verdict: Why there is no score; ``""`` while the body has yet to decide.
        reason: One line for people.
    """

    metric: Metric
    attempt_id: int
    value: float | None = None
    verdict: str = ""
    reason: str = ""

    @property
    def score(self) -> Score:
        """The mean over replicates.

        Raises:
            NoScore: If the trial crashed, timed out, was invalid, a duplicate or a cheat.
        """
        if self.value is None:
            raise NoScore(self.verdict or "crash", self.reason or "no score")
        return Score(self.value, self.metric.direction)

    def __getattr__(self, name: str) -> Score:
        if name == self.metric.name:
            return self.score
        raise AttributeError(f"trial has no {name!r}; the metric is {self.metric.name!r}")
