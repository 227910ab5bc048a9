"""A campaign's hands outside of pytest, for the commands that train or score."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from .campaign import Campaign
from .devices import Lease
from .executors.local import LocalExecutor
from .experiment import Budget
from .judge import Judge
from .ledger import Ledger
from .preflight import check, default_tag, experiment_at
from .proposers.registry import create
from .slots import Rules
from .trial.launch import Launcher
from .trials import Trials


@contextmanager
def opened(root: Path, tag: str | None, command: str) -> Iterator[Campaign]:
    """Join a campaign that exists, alone, and leave it in order.

    Args:
        root: The project.
        tag: Of the campaign; None: the name of the current git branch.
        command: Who joins; shown to others who find the campaign busy.

    Raises:
        pytest.UsageError: No such campaign, or the project is not in order.
        ledger.CampaignBusy: Somebody else works on it.
    """
    experiment = experiment_at(root)
    repository = check(root, experiment)
    tag = tag or default_tag(repository)
    if not Ledger.exists(root, tag):
        raise pytest.UsageError(f"no campaign {tag!r} in {root}; give --tag")
    ledger = Ledger.open(root, tag)
    facts = ledger.meta("campaign")
    session = ledger.begin_session(driver=command, worker=command)
    lease = Lease()
    try:
        rules = Rules(
            tag=tag,
            base_commit=facts["base_commit"],
            budget=Budget.parse(facts["budget"]),
            seed=facts["seed"],
            calibrate=facts["calibrate"],
            sandbox="auto",
            threads=facts.get("threads", 1),
        )
        with Launcher() as launcher:
            trials = Trials(
                root=root,
                experiment=experiment,
                rules=rules,
                ledger=ledger,
                repository=repository,
                device=lease.take(),
                executor=LocalExecutor(launcher, root / ".autoresearch" / tag / "runs"),
            )
            campaign = Campaign(
                trials=trials,
                judge=Judge("confirm", experiment.metric.direction),
                proposer=lambda: create("ratchet", experiment=experiment, root=root),
                session_id=session,
                worker=command,
            )
            try:
                yield campaign
            finally:
                campaign.close()
    finally:
        lease.release()
        ledger.end_session(session, None)
        ledger.close()
