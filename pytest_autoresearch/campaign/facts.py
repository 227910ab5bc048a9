"""What is fixed for the life of a campaign, and what each session chooses."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import TYPE_CHECKING, Any, Literal

from ..core.errors import UsageError
from ..core.experiment import Budget, Experiment, Metric

if TYPE_CHECKING:
    from ..judge.parents import ParentSelection
    from ..judge.verdicts import Rule
    from ..ledger.store import Ledger
    from ..sandbox.policy import Mode

FRESH = 500
"""Offset of the confirmation's seeds; calibration and replicates never use seeds that high."""


@dataclass(frozen=True)
class CampaignFacts:
    """What a campaign was started with; stored in the ledger under ``campaign``.

    Attributes:
        base_commit: Commit whose files are the baseline.
        budget: Training budget of every run.
        calibrate: Number of the baseline's seeds, each trained with two random streams.
        seed: Campaign seed.
        metric: What is measured.
        files: Editable files.
        started: Unix seconds.
    """

    base_commit: str
    budget: Budget
    calibrate: int
    seed: int
    metric: Metric
    files: tuple[str, ...]
    started: float = field(default_factory=time.time)

    @classmethod
    def from_json(cls, stored: Mapping[str, Any]) -> CampaignFacts:
        """Read the stored form."""
        return cls(
            **{
                **stored,
                "budget": Budget.parse(stored["budget"]),
                "metric": Metric(**stored["metric"]),
                "files": tuple(stored["files"]),
            }
        )

    def to_json(self) -> dict[str, Any]:
        """Return the stored form."""
        return {**asdict(self), "budget": str(self.budget), "files": list(self.files)}

    @classmethod
    def load(cls, ledger: Ledger) -> CampaignFacts | None:
        """Read the facts of a ledger's campaign; None before its first session."""
        stored = ledger.meta("campaign")
        return cls.from_json(stored) if stored else None

    @property
    def baseline_seeds(self) -> tuple[int, ...]:
        """Seeds of the calibration, the same in every session of the campaign."""
        return tuple(1000 * self.seed + 1 + i for i in range(self.calibrate))

    @property
    def baselines(self) -> Mapping[int, tuple[int, int]]:
        """Number of each baseline attempt, from 1, to its seed and random stream.

        Every seed comes twice: the scatter between two streams is the noise of a pair.
        """
        runs = [(seed, stream) for stream in (0, 1) for seed in self.baseline_seeds]
        return dict(enumerate(runs, 1))

    def fresh_seeds(self, count: int) -> tuple[int, ...]:
        """Return seeds that no verdict has used."""
        return tuple(1000 * self.seed + FRESH + i for i in range(count))

    def check_comparable(self, experiment: Experiment, tag: str) -> None:
        """Check that scores of `experiment` can be compared with the campaign's.

        Raises:
            UsageError: The metric or the editable files changed.
        """
        if (self.metric, self.files) != (experiment.metric, tuple(experiment.files)):
            raise UsageError(
                f"campaign {tag!r} was started with another metric or other editable files than "
                "conftest.py declares now; restore the declaration or choose another tag"
            )


@dataclass(frozen=True)
class SessionSettings:
    """What one session chooses; field names are those of the options.

    Attributes:
        sandbox: Sandbox mode of candidates and agents.
        threads: CPU threads of a run.
        concurrency: Runs side by side on this machine.
        parents: Which attempt the next mutation starts from.
        judge: Rule that decides on a keep.
        max_noise: Relative spread of the baseline above which the campaign is refused.
        proposer: Proposer specification; None for the default.
        model, effort, client: Language model, its effort and the factory of its client.
        context, answer: Its window in tokens, and the form of its answers.
        control: Give every n-th attempt to the search proposer; 0 for none.
        max_cost: Dollars that the campaign may spend.
        price: Dollars per million input and output tokens, overriding the price list.
        papers: Query for arXiv.
    """

    sandbox: Mode = "auto"
    threads: int = 1
    concurrency: int = 1
    parents: ParentSelection = "champion"
    judge: Rule = "sequential"
    max_noise: float = 1.0
    proposer: str | None = None
    model: str | None = None
    effort: str | None = None
    client: str | None = None
    context: int | None = None
    answer: Literal["blocks", "whole"] = "blocks"
    control: int = 0
    max_cost: float | None = None
    price: tuple[float, float] | None = None
    papers: str | None = None

    @classmethod
    def select(cls, options: Mapping[str, Any]) -> SessionSettings:
        """Take the settings out of options, or out of the recorded options of a session."""
        names = {one.name for one in fields(cls)}
        return cls(**{name: value for name, value in options.items() if name in names})
