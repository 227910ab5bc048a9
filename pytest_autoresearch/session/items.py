"""Collection of program.md: numbered pytest items whose mutation is fetched when they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..core.outcome import Score, Trial
from .plan import Plan

PLAN = pytest.StashKey[Plan]()
"""Key of the session's plan in the pytest configuration."""


def mutation(trial: Trial, best: Score) -> None:
    """Keep the mutation only if it beats the bar."""
    assert trial.val_bpb < best


def other_metric(trial: Trial, best: Score) -> None:
    """Keep the mutation only if it beats the bar, for a metric of another name."""
    assert trial.score < best


def baseline(trial: Trial) -> None:
    """Require that the unchanged code has a score."""
    assert trial.score is not None


class AttemptItem(pytest.Function):
    """One numbered attempt of a campaign.

    Attributes:
        kind: ``"baseline"`` or ``"mutation"``.
        number: From 1, counted over the whole campaign.
    """

    def __init__(self, *args: Any, kind: str, number: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        self.number = number
        self.add_marker("autoresearch")

    def reportinfo(self) -> tuple[Path, int, str]:
        """Return program.md as the location, not the plugin's source."""
        return self.path, 0, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """Return the one line of a verdict; anything else as pytest shows it."""
        reason = getattr(excinfo.value, "autoresearch_reason", None)
        return reason if reason else super().repr_failure(excinfo)


class ProgramFile(pytest.File):
    """Collector of attempts behind the researcher's brief."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the missing baseline items, then the mutations of the session."""
        plan = self.config.stash[PLAN]
        body = mutation if plan.facts.metric.name == "val_bpb" else other_metric
        for number in plan.baselines:
            yield AttemptItem.from_parent(
                self, name=f"baseline-{number}", callobj=baseline, kind="baseline", number=number
            )
        for number in plan.numbers:
            yield AttemptItem.from_parent(
                self,
                name=f"mutation-{number:04d}",
                callobj=body,
                kind="mutation",
                number=number,
            )
