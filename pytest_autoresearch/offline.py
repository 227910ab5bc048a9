"""A campaign's hands outside of pytest, for the commands that train or score."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from .campaign import Campaign
from .devices import Lease
from .executors.local import LocalExecutor
from .experiment import Budget, Experiment
from .judge import Judge
from .ledger import CampaignBusy, Ledger, LedgerUnavailable
from .preflight import check, default_tag, experiment_at
from .proposers.registry import create
from .repository import RepositoryError
from .slots import InfrastructureFailure, Rules
from .trial.launch import Launcher
from .trials import Trials

FAILURES = (
    pytest.UsageError, CampaignBusy, InfrastructureFailure, LedgerUnavailable, RepositoryError,
    RuntimeError, OSError, KeyboardInterrupt,
)  # fmt: skip
"""What ends a command with one line: nothing of it is a verdict."""


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
    facts, asked = ledger.meta("campaign"), _asked(ledger)
    _check_same(ledger, facts, experiment, root, tag)
    session = ledger.begin_session(driver=command, worker=command)
    lease = Lease()
    try:
        rules = Rules(
            tag=tag,
            base_commit=facts["base_commit"],
            budget=Budget.parse(facts["budget"]),
            seed=facts["seed"],
            calibrate=facts["calibrate"],
            sandbox=asked.get("sandbox", "auto"),
            threads=asked.get("threads", 1),
        )
        device = lease.take()
        if device.kind == "cuda":
            os.environ["CUDA_VISIBLE_DEVICES"] = device.index  # without it trials see no GPU
        with Launcher() as launcher:
            trials = Trials(
                root=root,
                experiment=experiment,
                rules=rules,
                ledger=ledger,
                repository=repository,
                device=device,
                executor=LocalExecutor(
                    launcher,
                    root / ".autoresearch" / tag / "runs",
                    sandbox_mode=asked.get("sandbox", "auto"),
                ),
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


def _asked(ledger: Ledger) -> Mapping[str, Any]:
    """What the last pytest session was asked for: its trials are what is compared with."""
    asked = [session.config for session in ledger.sessions() if session.config]
    return asked[-1] if asked else {}


def _check_same(
    ledger: Ledger, facts: Mapping[str, Any] | None, experiment: Experiment, root: Path, tag: str
) -> None:
    """See that scores measured now can be compared with the campaign's.

    Raises:
        pytest.UsageError: They cannot, and why.
    """
    if facts is None:
        raise pytest.UsageError(f"campaign {tag!r} ended before it began; give another --tag")
    metric, files = asdict(experiment.metric), list(experiment.files)
    if facts["metric"] != metric or facts["files"] != files:
        raise pytest.UsageError(
            f"campaign {tag!r} was started with another metric or other editable files than "
            "conftest.py declares now"
        )
    known = ledger.meta("data_sha256")
    if experiment.run is not None or experiment.data is None or known is None:
        return
    from .scoring.dataset import Dataset

    if Dataset.open(root / experiment.data).sha256 != known:
        raise pytest.UsageError(
            f"{experiment.data} is other data than campaign {tag!r} was scored on; prepare the old "
            "data again"
        )
