"""Stop conditions, exit codes and signals of a session."""

from __future__ import annotations

import atexit
import contextlib
import os
import signal
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..campaign.pause import clock
from ..core.experiment import Metric
from ..judge.parents import stop
from ..options import Options
from .plan import Plan

if TYPE_CHECKING:
    from ..ledger.store import Ledger

STOP_FILE = "STOP"


def stop_condition(
    plan: Plan, options: Options, metric: Metric, folder: Path, ledger: Ledger | None
) -> str:
    """Return the reason why no further attempt should start, or ''.

    Args:
        plan: Plan of the session, with its deadline.
        options: Options of the session: plateau, target and failures.
        metric: Metric of the experiment.
        folder: Folder of the campaign, where a user may create a `STOP_FILE`.
        ledger: None before this process has joined.

    Raises:
        LedgerUnavailable: The ledger cannot be read.
    """
    if plan.deadline is not None and clock() >= plan.deadline:
        return "deadline reached"
    if (folder / STOP_FILE).exists():
        return f"{folder / STOP_FILE} exists"
    if ledger is None:
        return ""
    # Failures of earlier sessions must not stop this one.
    first = min((s.id for s in ledger.sessions() if s.driver == plan.driver), default=0)
    attempts = ledger.attempts()
    return stop(
        [attempt for attempt in attempts if attempt.session_id >= first],
        ledger.champions(),
        metric,
        plateau=options.plateau,
        target=options.target,
        failures=options.max_failures,
        everything=attempts,
    )


def exit_code(
    status: int, counts: Mapping[str, int], failures: int, *, min_keep: int, own_stop: bool
) -> int:
    """Return 0 if the campaign ran; 1 if baseline or infrastructure failed, or too few were kept.

    Args:
        status: Exit code of pytest; usage, internal and collection errors are passed on.
        counts: Number of attempts by verdict, and by ``infra``.
        failures: Number of failed reports.
        min_keep: Required number of keeps.
        own_stop: A stop condition ended the session, which is not an interruption.
    """
    passed_on = [
        pytest.ExitCode.USAGE_ERROR,
        pytest.ExitCode.INTERNAL_ERROR,
        pytest.ExitCode.NO_TESTS_COLLECTED,
        *([] if own_stop else [pytest.ExitCode.INTERRUPTED]),
    ]
    if status in passed_on:
        return int(status)
    tried = sum(n for verdict, n in counts.items() if verdict not in ("baseline", "infra"))
    crashed = sum(counts.get(verdict, 0) for verdict in ("crash", "timeout", "infra"))
    failed = failures > 0 or status == pytest.ExitCode.TESTS_FAILED
    all_crashed = tried > 0 and crashed >= tried
    return int(failed or all_crashed or counts.get("keep", 0) < min_keep)


class Signals:
    """Signal handlers during a session; the former handlers are restored."""

    def __init__(self) -> None:
        self._before: dict[signal.Signals, Any] = {}

    def listen(self) -> None:
        """Handle SIGTERM, and SIGHUP except under ``nohup``, like Ctrl-C."""
        numbers = {signal.SIGTERM, signal.SIGHUP}
        if signal.getsignal(signal.SIGHUP) is signal.SIG_IGN:  # nohup
            numbers.remove(signal.SIGHUP)
        self._before = _handle({number: self._terminated for number in numbers})

    def ignore(self, also_ctrl_c: bool = False) -> None:
        """Ignore the signals while the session ends."""
        ignored: dict[signal.Signals, Any] = dict.fromkeys(self._before, signal.SIG_IGN)
        if also_ctrl_c and self._before:
            self._before |= _handle({signal.SIGINT: signal.SIG_IGN})
        _handle(ignored)

    def restore(self) -> None:
        """Restore the former handlers, except while the interpreter exits; safe to call twice."""
        if signal.SIGINT in self._before:
            atexit.register(_handle, dict.fromkeys(self._before, signal.SIG_IGN))
        _handle({number: old or signal.SIG_DFL for number, old in self._before.items()})
        self._before = {}

    def _terminated(self, number: int, frame: object) -> None:
        self.ignore()
        raise KeyboardInterrupt


def terminate(processes: Iterable[int]) -> None:
    """Send SIGTERM to processes that still exist."""
    for process in processes:
        with contextlib.suppress(OSError):
            os.kill(process, signal.SIGTERM)


def _handle(handlers: Mapping[signal.Signals, Any]) -> dict[signal.Signals, Any]:
    """Set handlers and return the former ones; do nothing outside the main thread."""
    with contextlib.suppress(ValueError):
        return {number: signal.signal(number, new) for number, new in handlers.items()}
    return {}
