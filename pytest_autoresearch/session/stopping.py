"""When a night ends of itself, and the exit code that it deserves."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..core.experiment import Metric
from ..judge.parents import stop
from ..options import Options
from .plan import Plan

if TYPE_CHECKING:
    from ..ledger.store import Ledger

STOP_FILE = "STOP"


def why_now(
    plan: Plan, options: Options, metric: Metric, folder: Path, ledger: Ledger | None
) -> str:
    """Return why no further attempt should start, or ''.

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
        [attempt for attempt in ledger.attempts() if attempt.session_id >= first],
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


class Signals:
    """The handlers of a process that runs a session; what was there before comes back."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Take SIGTERM and SIGHUP for Ctrl-C, which pytest ends in order; not under ``nohup``."""
        numbers = {signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
            numbers.remove(signal.SIGHUP)
        self._before = _handle({number: self._terminated for number in numbers})

    def ignore(self) -> None:
        """Let none of them cut off what is being written; Ctrl-C still does."""
        _handle({number: signal.SIG_IGN for number in self._before})

    def restore(self) -> None:
        """Set the handlers that were there before; safe to call twice."""
        _handle({number: old or signal.SIG_DFL for number, old in self._before.items()})
        self._before = {}

    def _terminated(self, number: int, frame: object) -> None:
        self.ignore()
        raise KeyboardInterrupt


def terminate(processes: Iterable[int]) -> None:
    """Ask processes to end as Ctrl-C would end them; one that is gone already has."""
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)


def _handle(handlers: Mapping[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set handlers and return those before; none outside of the main thread."""
    with contextlib.suppress(ValueError):
        return {number: signal.signal(number, new) for number, new in handlers.items()}
    return {}
