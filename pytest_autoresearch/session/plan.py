"""Plan of one pytest run, made before anything is spent."""

from __future__ import annotations

import json
import secrets
from contextlib import closing
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import pytest

from ..campaign.facts import CampaignFacts
from ..campaign.pause import clock
from ..campaign.project import check_data_identity, default_tag
from ..core.errors import UsageError
from ..core.experiment import Budget, Experiment
from ..ledger.git import Repository, RepositoryError
from ..ledger.store import Ledger, LedgerUnavailable
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
    """Plan the session of a new or a resumed campaign; writes nothing.

    A resumed campaign keeps its own facts; options that contradict them are refused.

    Raises:
        UsageError: With the remedy, before anything is spent.
    """
    root = config.rootpath
    tag = options.tag or default_tag(repository)
    plan = Plan(
        tag=tag,
        program=experiment.program,
        driver=secrets.token_hex(8),
        facts=CampaignFacts(
            base_commit=repository.head(),
            budget=Budget.parse(str(_budget(options, experiment))),
            calibrate=options.calibrate,
            seed=options.seed,
            metric=experiment.metric,
            files=tuple(experiment.files),
        ),
        baselines=(),
        unused=(),
        first=1,
        attempts=options.iterations or MAX_ATTEMPTS,
        deadline=clock() + options.deadline if options.deadline else None,
        concurrency=max(1, len(getattr(config.option, "tx", None) or ())),
    )
    try:
        if not Ledger.exists(root, tag):
            repository.check_branch(tag, ())
            return replace(plan, baselines=tuple(plan.facts.baselines))
        with closing(Ledger.open(root, tag)) as ledger:
            repository.check_branch(tag, [champion.commit for champion in ledger.champions()])
            stored = CampaignFacts.load(ledger)
            if stored is not None:
                _check_budget(options, stored, tag)
                stored.check_comparable(experiment, tag)
                plan = replace(plan, facts=stored)
            check_data_identity(root, experiment, ledger, tag)
            return _numbered(plan, ledger)
    except (LedgerUnavailable, RepositoryError) as error:
        raise UsageError(str(error)) from None


def settle(plan: Plan, root: Path, experiment: Experiment, ledger: Ledger) -> Plan:
    """Return the plan with the numbers that the locked campaign has, and record its facts.

    Another session may have worked on the campaign since `make`.

    Raises:
        UsageError: The campaign or its data is not the one that was planned for.
    """
    stored = CampaignFacts.load(ledger)
    if stored is None:
        ledger.set_meta("campaign", plan.facts.to_json())
    elif replace(stored, started=plan.facts.started) == plan.facts:
        plan = replace(plan, facts=stored)
    else:
        raise UsageError(f"campaign {plan.tag!r} was just started by another session; run again")
    check_data_identity(root, experiment, ledger, plan.tag, record=True)
    return _numbered(plan, ledger)


def _numbered(plan: Plan, ledger: Ledger) -> Plan:
    """Return the plan without measured baselines, its mutations numbered from the next one."""
    measured = ledger.measured("baseline")
    baselines = tuple(number for number in plan.facts.baselines if number not in measured)
    first, unused = ledger.next_number("mutation"), tuple(ledger.unused_numbers("mutation"))
    return replace(plan, baselines=baselines, first=first, unused=unused)


def _budget(options: Options, experiment: Experiment) -> Budget:
    device = "cuda" if visible_gpus() and experiment.run is None else "cpu"
    budget = options.budget or experiment.budget or default_budget(device)
    if experiment.run is not None and budget.kind == "equal":
        return Budget("wall", 300.0)
    return budget


def _check_budget(options: Options, stored: CampaignFacts, tag: str) -> None:
    if options.budget is not None and str(options.budget) != str(stored.budget):
        raise UsageError(
            f"--autoresearch-budget={options.budget}: campaign {tag!r} measures with "
            f"{stored.budget}, and scores under different budgets cannot be compared; leave the "
            "option out, or give another --autoresearch-tag"
        )
