"""Families of ideas: what each gained, how well its gains were foreseen, and when one is exhausted.

A proposal may state a family and the gain that it expects; both are its own words.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any, Protocol

FAMILIES = (
    "architecture", "optimizer", "schedule", "initialisation", "efficiency", "data order",
    "deletion",
)  # fmt: skip

EXHAUSTED = 8
"""Latest attempts without a keep after which another family is asked for."""


class Tried(Protocol):
    """What an attempt's record and a proposer's view of it have in common."""

    @property
    def verdict(self) -> str | None:
        """Its verdict, or None or ``running``."""

    @property
    def gain(self) -> float | None:
        """Its gain, or None."""

    @property
    def meta(self) -> Mapping[str, Any]:
        """The proposal's notes."""


@dataclass(frozen=True)
class FamilyRecord:
    """The results of one family.

    Attributes:
        name: Of the family.
        tried, kept: Attempts.
        gain: Sum of the gains of the keeps.
        expected, measured: Mean gains of the attempts that stated an expectation and have a gain;
            None if there are none.
        judged: Number of those attempts.
    """

    name: str
    tried: int
    kept: int
    gain: float
    expected: float | None
    measured: float | None
    judged: int

    def __str__(self) -> str:
        """Return ``optimizer: 2 of 5 kept, +0.012300; expected +0.0200, measured +0.0031 (4)``."""
        text = f"{self.name}: {self.kept} of {self.tried} kept"
        if self.kept:
            text += f", {self.gain:+.6f}"
        if self.expected is not None and self.measured is not None:
            text += f"; expected {self.expected:+.4f}, measured {self.measured:+.4f} on average"
        return text


def family_of(meta: Mapping[str, Any]) -> str:
    """Return the family that a proposal states, or ''."""
    family = meta.get("family")
    return family if family in FAMILIES else ""


def expected_of(meta: Mapping[str, Any]) -> float | None:
    """Return the gain that a proposal expects, or None."""
    value = meta.get("expected")
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return float(value) if math.isfinite(value) else None


def by_family(attempts: Iterable[Tried]) -> list[FamilyRecord]:
    """Return the record of each family that occurs, the one with the largest gain first."""
    groups: dict[str, list[Tried]] = {}
    for attempt in attempts:
        finished = attempt.verdict not in (None, "running", "baseline")
        if finished and (family := family_of(attempt.meta)):
            groups.setdefault(family, []).append(attempt)
    records = [_record(name, group) for name, group in groups.items()]
    return sorted(records, key=lambda record: (-record.gain, -record.tried, record.name))


def _record(name: str, attempts: Sequence[Tried]) -> FamilyRecord:
    keeps = [attempt.gain or 0.0 for attempt in attempts if attempt.verdict == "keep"]
    pairs = [
        (expected, attempt.gain)
        for attempt in attempts
        if (expected := expected_of(attempt.meta)) is not None and attempt.gain is not None
    ]
    return FamilyRecord(
        name,
        len(attempts),
        len(keeps),
        sum(keeps),
        fmean(expected for expected, _ in pairs) if pairs else None,
        fmean(gain for _, gain in pairs) if pairs else None,
        len(pairs),
    )


def exhausted(attempts: Iterable[Tried]) -> str:
    """Return the family of the latest `EXHAUSTED` attempts that state one; '' if they differ.

    Args:
        attempts: Finished attempts since the last keep, newest first.
    """
    families: list[str] = []
    for attempt in attempts:
        if attempt.verdict and (family := family_of(attempt.meta)):
            families.append(family)
        if len(families) == EXHAUSTED:
            return families[0] if len(set(families)) == 1 else ""
    return ""
