"""Checks of a mutation before any training."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

from ..core.outcome import NoScore
from ..core.records import CheckNote
from ..ledger.git import CommitLost
from ..source.checks import run_checks
from ..source.fingerprint import shape

if TYPE_CHECKING:
    from .attempt import WorkingAttempt
    from .runs import Runner

NEAR = 0.05
"""Relative difference of numbers below which a mutation is noted as a near duplicate."""

NEAR_LOOK_BACK = 200
"""Attempts that are searched for near duplicates."""


def check(runner: Runner, attempt: WorkingAttempt) -> None:
    """Run every check that needs no training; the first that fails refuses the attempt."""
    if attempt.refusal is not None or attempt.proposal is None:
        return
    ledger = runner.ledger
    attempt.fingerprint = runner.fingerprint(attempt.files)
    notes = run_checks(attempt.before, attempt.files)
    ledger.add_check_notes(attempt.record.id, notes)
    if not notes[-1].ok:
        attempt.refusal = NoScore("invalid", notes[-1].detail)
        return
    if near := _near_duplicate(runner, attempt):
        ledger.add_check_notes(attempt.record.id, [near])
    earlier = ledger.claim_fingerprint(attempt.record.id, attempt.fingerprint)
    if earlier is not None:
        verdict = earlier.verdict or "still running"
        score = f" at {earlier.score:.6f}" if earlier.score is not None else ""
        attempt.refusal = NoScore(
            "duplicate", f"same code as {earlier.name} ({earlier.title}): {verdict}{score}"
        )


def _near_duplicate(runner: Runner, attempt: WorkingAttempt) -> CheckNote | None:
    """Return a note on an earlier mutation that differs in slightly other numbers only."""
    started, mutated = time.perf_counter(), shape(attempt.files)
    for record in reversed(runner.ledger.attempts()[-NEAR_LOOK_BACK:]):
        if record.id == attempt.record.id or not record.commit or record.kind == "baseline":
            continue
        with contextlib.suppress(CommitLost):
            if mutated.close_to(runner.shape(record.commit), NEAR):
                detail = f"nearly {record.name} ({record.title}): {record.verdict}"
                return CheckNote("near duplicate", True, detail, time.perf_counter() - started)
    return None
