"""When a night ends of itself, and the exit code that it deserves."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .experiment import Metric
from .options import Config
from .plan import Plan
from .policy import stop

if TYPE_CHECKING:
    from .ledger import Ledger

STOP_FILE = "STOP"


def why_now(
    plan: Plan, options: Config, metric: Metric, folder: Path, ledger: Ledger | None
) -> str:
    """Return why no further slot should start, or ''.

    Args:
        plan: With the deadline.
        options: With what the policy stops at.
        metric: Of the experiment.
        folder: Of the campaign, where a person may leave a `STOP_FILE`.
        ledger: None before this process has joined.

    Raises:
        LedgerUnavailable: It cannot be read.
    """
    if plan.deadline is not None and time.time() >= plan.deadline:
        return "deadline reached"
    if (folder / STOP_FILE).exists():
        return f"{folder / STOP_FILE} exists"
    if ledger is None:
        return ""
    # what earlier nights failed at stops nothing
    first = min((s.id for s in ledger.sessions() if s.driver == plan.driver), default=0)
    return stop(
        [slot for slot in ledger.slots() if slot.session_id >= first],
        ledger.champions(),
        metric,
        plateau=options.plateau,
        target=options.target,
        failures=options.max_failures,
    )


def exit_code(
    status: int, counts: Mapping[str, int], failures: int, *, min_keep: int, own_stop: bool
) -> int:
    """Return 0 if the campaign ran; 1 if baseline or infrastructure failed, or too few were kept.

    Args:
        status: pytest's; what is no outcome of the night stays.
        counts: Verdicts, and ``infra``.
        failures: Reports that failed.
        min_keep: Keeps that were asked for.
        own_stop: It ended of itself: that is no interruption.
    """
    kept_as_it_is = [
        pytest.ExitCode.USAGE_ERROR,
        pytest.ExitCode.INTERNAL_ERROR,
        pytest.ExitCode.NO_TESTS_COLLECTED,
        *([] if own_stop else [pytest.ExitCode.INTERRUPTED]),
    ]
    if status in kept_as_it_is:
        return int(status)
    tried = sum(n for verdict, n in counts.items() if verdict not in ("baseline", "infra"))
    crashed = sum(counts.get(verdict, 0) for verdict in ("crash", "timeout", "infra"))
    failed = failures > 0 or status == pytest.ExitCode.TESTS_FAILED
    all_crashed = tried > 0 and crashed >= tried
    return int(failed or all_crashed or counts.get("keep", 0) < min_keep)
