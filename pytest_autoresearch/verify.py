"""Does a kept score stand? Scored once more, by today's evaluator, on today's data."""

from __future__ import annotations

import math
import sys
from pathlib import Path

import pytest

from .campaign import Campaign, InfrastructureFailure, Rules
from .devices import Lease
from .executors.local import LocalExecutor
from .experiment import Budget
from .judge import Judge
from .ledger import CampaignBusy, Ledger
from .preflight import check, default_tag, experiment_at
from .proposers.registry import create
from .records import SlotRecord
from .trial.launch import Launcher

AGREES = 1e-4
"""Share by which a score from the same checkpoint may differ: the audits draw other positions."""


def verify(root: Path, tag: str | None, commit: str) -> int:
    """Score a commit of a campaign again and say whether it stands.

    Returns:
        0 if it stands, 1 if it does not, 4 if it could not be tried.
    """
    try:
        return _verify(root, tag, commit)
    except (pytest.UsageError, CampaignBusy, InfrastructureFailure, RuntimeError) as error:
        print(error, file=sys.stderr)
        return 4


def _verify(root: Path, tag: str | None, commit: str) -> int:
    experiment = experiment_at(root)
    repository = check(root, experiment)
    tag = tag or default_tag(repository)
    if not Ledger.exists(root, tag):
        raise pytest.UsageError(f"no campaign {tag!r} in {root}; give --tag")
    ledger = Ledger.open(root, tag)
    record = _find(ledger, commit)
    facts = ledger.meta("campaign")
    lease = Lease()
    rules = Rules(
        tag=tag,
        base_commit=facts["base_commit"],
        budget=Budget.parse(facts["budget"]),
        seed=facts["seed"],
        calibrate=facts["calibrate"],
        sandbox="auto",
        threads=1,
    )
    session = ledger.begin_session(driver="verify", worker="verify")
    with Launcher() as launcher:
        campaign = Campaign(
            root=root,
            experiment=experiment,
            rules=rules,
            ledger=ledger,
            repository=repository,
            session_id=session,
            worker="verify",
            device=lease.take(),
            executor=LocalExecutor(launcher, root / ".autoresearch" / tag / "runs"),
            proposer=lambda: create("ratchet", experiment=experiment, root=root),
            judge=Judge(),
        )
        try:
            stands = _report(campaign, record)
        finally:
            campaign.close()
            lease.release()
            ledger.end_session(session, None)
    return 0 if stands else 1


def _find(ledger: Ledger, commit: str) -> SlotRecord:
    for record in ledger.slots():
        named = record.name == commit or (len(commit) >= 6 and record.commit.startswith(commit))
        if named and record.score is not None:
            return record
    raise pytest.UsageError(
        f"{commit!r} is no scored slot of this campaign; give a commit of its branch or a name "
        "such as mutation-0007"
    )


def _report(campaign: Campaign, record: SlotRecord) -> bool:
    name = campaign.experiment.metric.name
    print(f"{record.name} {record.title} ({record.commit[:10]})")
    stands = True
    for seed, before, result in campaign.verify(record):
        how = "trained again" if result.steps else "from its checkpoint"
        if result.score is None or before is None:
            print(f"  seed {seed}: {result.status}: {result.reason} ({how})")
            stands = False
            continue
        allowed = 4 * campaign.noise().sigma if result.steps else AGREES * abs(before)
        agrees = math.isclose(before, result.score, rel_tol=0.0, abs_tol=allowed)
        stands = stands and agrees
        print(
            f"  seed {seed}: {name} {before:.6f} then, {result.score:.6f} now ({how}): "
            + ("stands" if agrees else f"differs by more than {allowed:.6f}")
        )
    print("stands" if stands else "does not stand")
    return stands
