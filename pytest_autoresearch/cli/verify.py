"""Verify one score by scoring it again, or a whole campaign on fresh seeds."""

from __future__ import annotations

import math
from pathlib import Path

from ..campaign.confirm import confirm, forecast
from ..campaign.loop import Campaign
from ..campaign.open import open_campaign
from ..core.errors import UsageError
from ..core.records import Attempt
from ..judge.confirmation import lines
from ..ledger.store import Ledger

AGREES = 1e-4
"""Relative difference allowed between scores of one checkpoint, whose audits draw new positions."""


def verify_commit(root: Path, tag: str | None, commit: str) -> int:
    """Score a commit of a campaign again.

    Returns:
        Exit code: 0 if the score is reproduced, 1 if not.
    """
    with open_campaign(root, tag, "verify") as campaign:
        return 0 if _score_again(campaign, _find(campaign.ledger, commit)) else 1


def verify_campaign(root: Path, tag: str | None, seeds: int) -> int:
    """Train every champion on fresh seeds and print which keeps hold.

    Returns:
        Exit code: 0 if the gain is confirmed or nothing was kept, 1 if it is open or lost.
    """
    with open_campaign(root, tag, "verify") as campaign:
        if len(campaign.ledger.champions()) > 1:
            print(forecast(campaign, seeds), flush=True)
        confirmation = confirm(
            campaign, seeds, everyone=True, say=lambda line: print(line, flush=True)
        )
        if confirmation is None:
            print("nothing was kept, so there is nothing to confirm")
            return 0
        for line in lines(confirmation, campaign.experiment.metric.name):
            print(line)
        gain = confirmation.confirmed
        return 0 if gain is not None and gain.standing == "confirmed" else 1


def _find(ledger: Ledger, commit: str) -> Attempt:
    for record in ledger.attempts():
        named = record.name == commit or (len(commit) >= 6 and record.commit.startswith(commit))
        if named and record.score is not None:
            return record
    raise UsageError(
        f"{commit!r} has no score in this campaign; give a commit of its branch or a name such as "
        "mutation-0007"
    )


def _score_again(campaign: Campaign, record: Attempt) -> bool:
    name = campaign.experiment.metric.name
    print(f"{record.name} {record.title} ({record.commit[:10]})")
    results, stands = campaign.measurement.verify(record), True
    if not results:
        raise UsageError(f"no run of {record.name} is recorded, so none can be repeated")
    for seed, before, result in results:
        trained = result.train_seconds > 0
        how = "trained again" if trained else "from its checkpoint"
        if result.score is None:
            print(f"  seed {seed}: {result.status}: {result.reason} ({how})")
            stands = False
            continue
        allowed = 4 * campaign.runner.noise().sigma if trained else AGREES * abs(before)
        agrees = math.isclose(before, result.score, rel_tol=0.0, abs_tol=allowed)
        stands = stands and agrees
        print(
            f"  seed {seed}: {name} {before:.6f} then, {result.score:.6f} now ({how}): "
            + ("stands" if agrees else f"differs by more than {allowed:.6f}")
        )
    print("stands" if stands else "does not stand")
    return stands
