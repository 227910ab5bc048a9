"""program.md becomes attempts: numbered pytest items whose mutation is fetched when they run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..core.outcome import Score, Trial


def mutation(trial: Trial, best: Score) -> None:
    """Body of every attempt: better than the bar, or not kept."""
    assert trial.val_bpb < best


def other_metric(trial: Trial, best: Score) -> None:
    """The same for a metric of another name."""
    assert trial.score < best


def baseline(trial: Trial) -> None:
    """Body of a calibration item: the unchanged code must have a score."""
    assert trial.score is not None


class AttemptItem(pytest.Function):
    """One numbered place in a campaign.

    Attributes:
        kind: ``"baseline"`` or ``"mutation"``.
        number: From 1, counting over the whole campaign.
    """

    def __init__(self, *args: Any, kind: str, number: int, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.kind = kind
        self.number = number
        self.add_marker("autoresearch")

    def reportinfo(self) -> tuple[Path, int, str]:
        """Point reports at program.md, not at the plugin's source."""
        return self.path, 0, self.name

    def repr_failure(self, excinfo: pytest.ExceptionInfo[BaseException]) -> Any:  # type: ignore[override]
        """Show a verdict as its one line; anything else as pytest does."""
        reason = getattr(excinfo.value, "autoresearch_reason", None)
        return reason if reason else super().repr_failure(excinfo)


class ProgramFile(pytest.File):
    """The researcher's brief as a collector of attempts."""

    def collect(self) -> Iterator[pytest.Item]:
        """Yield the missing baseline items, then the session's attempts."""
        from .session import SESSION

        plan = self.config.stash[SESSION].plan
        body = mutation if plan.metric == "val_bpb" else other_metric
        for number in plan.baselines:
            yield AttemptItem.from_parent(
                self, name=f"baseline-{number}", callobj=baseline, kind="baseline", number=number
            )
        for number in range(plan.first, plan.first + plan.attempts):
            yield AttemptItem.from_parent(
                self,
                name=f"mutation-{number:04d}",
                callobj=body,
                kind="mutation",
                number=number,
            )
