"""Plan of one pytest run, made before anything is spent."""

from __future__ import annotations

import json
import secrets
from dataclasses import asdict, dataclass

import pytest

from ..campaign.facts import CampaignFacts
from ..campaign.pause import clock
from ..campaign.project import check_data_identity, default_tag
from ..core.errors import UsageError
from ..core.experiment import Budget, Experiment
from ..ledger.git import Repository, RepositoryError
from ..ledger.store import CampaignBusy, Ledger, LedgerUnavailable
from ..options import MAX_ATTEMPTS, Options
from ..training.devices import default_budget, visible_gpus


@dataclass(frozen=True)
class Plan:
    """What the driver decides once and sends to every worker.

    Attributes:
        tag: Name of the campaign.
        program: Path of the brief relative to the root.
        driver: Token of this pytest run; its processes share one campaign lock.
        facts: What the campaign was started with.
        baselines: Numbers of the calibration items to collect.
        unused: Numbers of earlier mutations that were planned and never begun.
        first: Number of the first new mutation.
        attempts: How many mutations are collected.
        deadline: Time by `campaign.pause.clock` after which no attempt starts, or None.
        concurrency: Runs side by side.
    """

    tag: str
    program: str
    driver: str
    facts: CampaignFacts
    baselines: tuple[int, ...]
    unused: tuple[int, ...]
    first: int
    attempts: int
    deadline: float | None
    concurrency: int

    def to_json(self) -> str:
        """Return the plan as xdist carries it."""
        return json.dumps({**asdict(self), "facts": self.facts.to_json()})

    @classmethod
    def from_json(cls, text: str) -> Plan:
        """Read what `to_json` returned."""
        plan = json.loads(text)
        for name in ("baselines", "unused"):
            plan[name] = tuple(plan[name])
        return cls(**{**plan, "facts": CampaignFacts.from_json(plan["facts"])})

    @property
    def numbers(self) -> list[int]:
        """Numbers of the mutations of this session."""
        new = range(self.first, self.first + self.attempts)
        return [*self.unused, *new][: self.attempts]


def make(
    config: pytest.Config, options: Options, experiment: Experiment, repository: Repository
) -> Plan:
    """Plan the session of a new or a resumed campaign.

    A resumed campaign keeps its own facts; options that contradict them are refused.

    Raises:
        UsageError: With the remedy, before anything is spent.
    """
    root, dry = config.rootpath, config.option.collectonly or config.option.setupplan
    tag = options.tag or default_tag(repository)
    facts = CampaignFacts(
        base_commit=repository.head(),
        budget=Budget.parse(str(_budget(options, experiment))),
        calibrate=options.calibrate,
        seed=options.seed,
        metric=experiment.metric,
        files=tuple(experiment.files),
    )
    measured: set[int] = set()
    unused: list[int] = []
    first = 1
    if not dry or Ledger.exists(root, tag):
        try:
            ledger = Ledger.open(root, tag)
            repository.check_branch(tag, [champion.commit for champion in ledger.champions()])
            facts = _resume(ledger, facts, options, tag, dry)
            facts.check_comparable(experiment, tag)
            check_data_identity(root, experiment, ledger, tag, record=not dry)
            measured = {
                attempt.number
                for attempt in ledger.attempts()
                if attempt.kind == "baseline" and attempt.score is not None
            }
            first = ledger.next_number("mutation")
            unused = ledger.unused_numbers("mutation")
        except (CampaignBusy, LedgerUnavailable, RepositoryError) as error:
            raise UsageError(str(error)) from None
    return Plan(
        tag=tag,
        program=experiment.program,
        driver=secrets.token_hex(8),
        facts=facts,
        baselines=tuple(n for n in range(1, facts.calibrate + 1) if n not in measured),
        unused=tuple(unused),
        first=first,
        attempts=options.iterations or MAX_ATTEMPTS,
        deadline=clock() + options.deadline if options.deadline else None,
        concurrency=max(1, len(getattr(config.option, "tx", None) or ())),
    )


def _budget(options: Options, experiment: Experiment) -> Budget:
    device = "cuda" if visible_gpus() and experiment.run is None else "cpu"
    budget = options.budget or experiment.budget or default_budget(device)
    if experiment.run is not None and budget.kind == "equal":
        return Budget("wall", 300.0)
    return budget


def _resume(
    ledger: Ledger, facts: CampaignFacts, options: Options, tag: str, dry: bool
) -> CampaignFacts:
    """Return the stored facts of the campaign; store `facts` if it is new."""
    stored = CampaignFacts.load(ledger)
    if stored is None:
        if not dry:
            ledger.set_meta("campaign", facts.to_json())
        return facts
    if options.budget is not None and str(options.budget) != str(stored.budget):
        raise UsageError(
            f"--autoresearch-budget={options.budget}: campaign {tag!r} measures with "
            f"{stored.budget}, and scores under different budgets cannot be compared; leave the "
            "option out, or give another --autoresearch-tag"
        )
    return stored
