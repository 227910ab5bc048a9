"""Does what was kept stand? One score scored once more, or a whole campaign on fresh seeds."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from ..campaign.confirm import close
from ..campaign.loop import Campaign
from ..campaign.open import FAILURES, opened
from ..core.records import Attempt
from ..judge.confirmation import lines
from ..ledger.store import Ledger

AGREES = 1e-4
"""Share by which a score from the same checkpoint may differ: the audits draw other positions."""

STANDS, FALLS, NOT_TRIED = 0, 1, 4


def verify_commit(root: Path, tag: str | None, commit: str) -> int:
    """Score a commit of a campaign again and say whether it stands.

    Returns:
        Exit code: 0 if it stands, 1 if it does not, 4 if it could not be tried.
    """

    def work(campaign: Campaign) -> bool:
        return _score_again(campaign, _find(campaign.ledger, commit))

    return _command(root, tag, "verify", work)


def verify_campaign(root: Path, tag: str | None, seeds: int) -> int:
    """Train every champion on fresh seeds and say which keeps hold.

    Returns:
        Exit code: 0 if the confirmed gain is positive or nothing was kept, 1 if it is not, 4 if it
        could not be tried.
    """

    def work(campaign: Campaign) -> bool:
        confirmation = close(
            campaign, seeds, everyone=True, say=lambda line: print(line, flush=True)
        )
        if confirmation is None:
            print("nothing was kept, so there is nothing to confirm")
            return True
        for line in lines(campaign.ledger.meta("confirmation"), campaign.experiment.metric.name):
            print(line)
        return confirmation.confirmed is not None and confirmation.confirmed.gain > 0

    return _command(root, tag, "verify", work)


def _command(root: Path, tag: str | None, name: str, work: Callable[[Campaign], bool]) -> int:
    try:
        with opened(root, tag, name) as campaign:
            return STANDS if work(campaign) else FALLS
    except FAILURES as error:
        print(str(error) or "interrupted; run it again to go on", file=sys.stderr)
        return NOT_TRIED


def _find(ledger: Ledger, commit: str) -> Attempt:
    for record in ledger.attempts():
        named = record.name == commit or (len(commit) >= 6 and record.commit.startswith(commit))
        if named and record.score is not None:
            return record
    raise pytest.UsageError(
        f"{commit!r} is no scored attempt of this campaign; give a commit of its branch or a name "
        "such as mutation-0007"
    )


def _score_again(campaign: Campaign, record: Attempt) -> bool:
    name = campaign.experiment.metric.name
    print(f"{record.name} {record.title} ({record.commit[:10]})")
    stands, found = True, campaign.measurement.verify(record)
    if not found:
        raise pytest.UsageError(f"none of the runs of {record.name} is known, so none is repeated")
    for seed, before, result in found:
        again = result.train_seconds > 0  # a command counts no steps
        how = "trained again" if again else "from its checkpoint"
        if result.score is None or before is None:
            print(f"  seed {seed}: {result.status}: {result.reason} ({how})")
            stands = False
            continue
        allowed = 4 * campaign.runner.noise().sigma if again else AGREES * abs(before)
        agrees = math.isclose(before, result.score, rel_tol=0.0, abs_tol=allowed)
        stands = stands and agrees
        print(
            f"  seed {seed}: {name} {before:.6f} then, {result.score:.6f} now ({how}): "
            + ("stands" if agrees else f"differs by more than {allowed:.6f}")
        )
    print("stands" if stands else "does not stand")
    return stands
