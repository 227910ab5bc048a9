"""What one pytest run decides before anything is spent, and what a campaign that exists decides."""

from __future__ import annotations

import secrets
import time
from dataclasses import asdict, dataclass
from typing import Any

import pytest

from ..campaign.project import default_tag
from ..core.experiment import Budget, Experiment
from ..options import MAX_ATTEMPTS, Options


@dataclass(frozen=True)
class Plan:
    """What the driver decides once, and hands to every worker.

    Attributes:
        tag: Campaign.
        driver: Token of this pytest run; its processes share one campaign lock.
        program: Path of program.md relative to the root.
        metric: Name of the metric.
        base_commit: Commit whose files are the baseline.
        budget: Training budget of a trial, as text.
        calibrate: Seeds of the baseline.
        baselines: Calibration items to collect.
        first: Number of the first attempt.
        attempts: How many are collected.
        deadline: Unix seconds after which no attempt starts, or None.
        concurrency: Trials side by side.
    """

    tag: str
    driver: str
    program: str
    metric: str
    base_commit: str
    budget: str
    calibrate: int
    baselines: tuple[int, ...]
    first: int
    attempts: int
    deadline: float | None
    concurrency: int


def make(config: pytest.Config, options: Options, experiment: Experiment, repository: Any) -> Plan:
    """Plan the session of a new campaign, or of one that goes on.

    Raises:
        pytest.UsageError: With the remedy, before anything is spent.
    """
    from ..ledger.git import RepositoryError
    from ..ledger.store import CampaignBusy, Ledger, LedgerUnavailable
    from ..training.devices import default_budget, visible_gpus

    root = config.rootpath
    tag = options.tag or default_tag(repository)
    driver = secrets.token_hex(8)
    device = "cuda" if visible_gpus() and experiment.run is None else "cpu"
    budget = options.budget or experiment.budget or default_budget(device)
    if experiment.run is not None and budget.kind == "equal":
        budget = Budget("wall", 300.0)
    dry = config.option.collectonly or config.option.setupplan
    plan = Plan(
        tag=tag,
        driver=driver,
        program=experiment.program,
        metric=experiment.metric.name,
        base_commit=repository.head(),
        budget=str(budget),
        calibrate=options.calibrate,
        baselines=tuple(range(1, options.calibrate + 1)),
        first=1,
        attempts=options.iterations or MAX_ATTEMPTS,
        deadline=time.time() + options.deadline if options.deadline else None,
        concurrency=max(1, len(getattr(config.option, "tx", None) or ())),
    )
    if dry and not Ledger.exists(root, tag):
        return plan
    try:
        ledger = Ledger.open(root, tag)
        repository.check_branch(tag, [champion.commit for champion in ledger.champions()])
        return _resume(plan, ledger, options, experiment, dry)
    except (CampaignBusy, LedgerUnavailable, RepositoryError) as error:
        raise pytest.UsageError(str(error)) from None


def _resume(plan: Plan, ledger: Any, options: Options, experiment: Experiment, dry: bool) -> Plan:
    """Continue where the ledger stands; its facts outrank what this session would choose."""
    facts = ledger.meta("campaign")
    if facts is None:
        facts = {
            "base_commit": plan.base_commit,
            "budget": plan.budget,
            "calibrate": plan.calibrate,
            "seed": options.seed,
            "metric": asdict(experiment.metric),
            "files": list(experiment.files),
            "started": time.time(),
        }
        if not dry:
            ledger.set_meta("campaign", facts)
    if options.budget is not None and str(options.budget) != facts["budget"]:
        raise pytest.UsageError(
            f"--autoresearch-budget={options.budget}: campaign {plan.tag!r} measures with "
            f"{facts['budget']}, and scores of unlike budgets cannot be compared; leave the option "
            "out, or give another --autoresearch-tag"
        )
    if facts["metric"] != asdict(experiment.metric) or facts["files"] != list(experiment.files):
        raise pytest.UsageError(
            f"campaign {plan.tag!r} was started with another metric or other editable files; "
            "give another --autoresearch-tag"
        )
    _check_data_identity(plan, ledger, experiment, dry)
    done = {s.number for s in ledger.attempts() if s.kind == "baseline" and s.score is not None}
    changes = {
        "base_commit": facts["base_commit"],
        "budget": facts["budget"],
        "calibrate": facts["calibrate"],
        "baselines": tuple(n for n in range(1, facts["calibrate"] + 1) if n not in done),
        "first": ledger.next_number("mutation"),
    }
    return Plan(**{**asdict(plan), **changes})


def _check_data_identity(plan: Plan, ledger: Any, experiment: Experiment, dry: bool) -> None:
    if experiment.data is None or experiment.run is not None:
        return
    from ..data.dataset import Dataset

    root = ledger.path.parent.parent.parent
    identity = Dataset.open(root / experiment.data).sha256
    known = ledger.meta("data_sha256")
    if known is None:
        if not dry:
            ledger.set_meta("data_sha256", identity)
    elif known != identity:
        raise pytest.UsageError(
            f"{experiment.data} is other data than campaign {plan.tag!r} was scored on; prepare "
            "the old data again, or give another --autoresearch-tag"
        )
