"""The result of an attempt in the test body: a score that compares by direction, or a reason."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from .experiment import Direction, Metric


class Verdict(StrEnum):
    """The result of an attempt; members equal their ledger value, e.g. ``"keep"``.

    Attributes:
        word: Past participle, for summaries.
        letter: For progress lines.
        colour: Terminal colour.
    """

    word: str
    letter: str
    colour: str

    KEEP = "keep", "kept", "K", "green"
    DISCARD = "discard", "discarded", "D", "yellow"
    CRASH = "crash", "crashed", "C", "red"
    TIMEOUT = "timeout", "timed out", "T", "red"
    INVALID = "invalid", "invalid", "I", "purple"
    DUPLICATE = "duplicate", "duplicates", "=", "blue"
    GUARD = "guard", "guarded", "G", "purple"
    CHEAT = "cheat", "cheats", "!", "red"
    BASELINE = "baseline", "calibrated", "B", "cyan"

    def __new__(cls, value: str, word: str, letter: str, colour: str) -> Verdict:
        """Create the member for a ledger value."""
        member = str.__new__(cls, value)
        member._value_, member.word, member.letter, member.colour = value, word, letter, colour
        return member


VERDICTS = {verdict.value: verdict for verdict in Verdict}
"""Ledger value to `Verdict`, in the order of summaries."""


class NoScore(Exception):
    """The attempt has no score to compare: an expected result of research, not a defect.

    Attributes:
        verdict: Ledger value.
        reason: One line for people.
    """

    def __init__(self, verdict: str, reason: str) -> None:
        super().__init__(f"{verdict}: {reason}")
        self.verdict = verdict
        self.reason = reason


class Score(float):
    """A metric's value whose ``<`` means *better than* in the metric's direction.

    ``assert trial.val_bpb < best`` is the whole verdict: for ``direction="max"``, 0.9 ``<`` 0.8.

    Attributes:
        direction: Of the metric.
        explanation: How a bar was computed, or ''.
    """

    direction: Direction
    explanation: str

    def __new__(cls, value: float, direction: Direction = "min", explanation: str = "") -> Score:
        """Wrap `value`."""
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
    """The measured attempt that the `trial` fixture passes to the test body.

    The metric's name (``trial.val_bpb``) and ``trial.score`` give the mean over replicates as a
    `Score`.

    Attributes:
        metric: The experiment's metric.
        attempt_id: Its ledger row.
        value: Mean over replicates, or None when there is no score.
        verdict: Why there is no score; ``""`` if there is one.
        reason: One line for people.
    """

    metric: Metric
    attempt_id: int
    value: float | None = None
    verdict: str = ""
    reason: str = ""

    @property
    def score(self) -> Score:
        """Return the mean over replicates.

        Raises:
            NoScore: It crashed, timed out, was invalid, a duplicate or a cheat.
        """
        if self.value is None:
            raise NoScore(self.verdict or "crash", self.reason or "no score")
        return Score(self.value, self.metric.direction)

    def __getattr__(self, name: str) -> Score:
        if name == self.metric.name:
            return self.score
        raise AttributeError(f"trial has no {name!r}; the metric is {self.metric.name!r}")
