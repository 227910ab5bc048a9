"""An attempt while it is being filled, the rules it is filled by, and what may cut it off."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from ..core.experiment import Budget
from ..core.outcome import NoScore
from ..core.proposal import Proposal
from ..judge.parents import ParentSelection

if TYPE_CHECKING:
    from ..core.records import Attempt, Champion
    from ..judge.verdicts import Decision


@dataclass
class WorkingAttempt:
    """An attempt while it is being filled.

    Attributes:
        record: Its row as it was when the attempt began.
        parent: The attempt whose files the edits apply to; None for a baseline.
        parent_commit: Commit of those files.
        files: The resulting editable files, once the edits applied.
        before: The parent's editable files.
        proposal: What was proposed.
        refusal: Why nothing can be trained, if so.
        scores: Seed to score, of every replicate so far.
        decision: The judge's last word.
        champion: The champion that `decision` compared with.
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


@dataclass(frozen=True)
class Rules:
    """What a campaign was started with and keeps for its life.

    Attributes:
        tag: Name of the campaign.
        base_commit: Commit whose files are the baseline.
        budget: Training budget of every trial.
        seed: Campaign seed.
        calibrate: Seeds of the baseline.
        sandbox: Mode of confinement.
        threads: CPU threads of a trial.
        concurrency: Trials that run side by side on this machine.
        parents: Whose files the next mutation changes.
        max_noise: Spread of the baseline above which nothing can be judged, as a share of it.
    """

    tag: str
    base_commit: str
    budget: Budget
    seed: int
    calibrate: int
    sandbox: str
    threads: int
    concurrency: int = 1
    parents: ParentSelection = "champion"
    max_noise: float = 1.0

    @property
    def baseline_seeds(self) -> tuple[int, ...]:
        """Seeds of the calibration, the same for every session of the campaign."""
        return tuple(1000 * self.seed + 1 + i for i in range(self.calibrate))
