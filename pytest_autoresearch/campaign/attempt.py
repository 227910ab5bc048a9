"""An attempt while it runs."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.outcome import NoScore
from ..core.proposal import Proposal

if TYPE_CHECKING:
    from ..core.records import Attempt, Champion
    from ..judge.verdicts import Decision


@dataclass
class WorkingAttempt:
    """An attempt while it runs.

    Attributes:
        record: Its row as it was when the attempt began.
        parent: Attempt whose files the edits apply to; None for a baseline.
        parent_commit: Commit of those files.
        files: Resulting editable files, once the edits applied.
        before: Editable files of the parent.
        proposal: What was proposed.
        refusal: Why there is no score, if so.
        scores: Seed to score, of every replicate so far.
        decision: Last decision of the judge.
        champion: Champion that `decision` compared with.
        fingerprint: Of `files`.
    """

    record: Attempt
    parent: Attempt | None = None
    parent_commit: str = ""
    files: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    proposal: Proposal | None = None
    refusal: NoScore | None = None
    scores: dict[int, float] = field(default_factory=dict)
    decision: Decision | None = None
    champion: Champion | None = None
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """Item name, e.g. ``mutation-0007``."""
        return self.record.name
