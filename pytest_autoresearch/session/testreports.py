"""Test reports of attempts: a verdict is an expected outcome, infrastructure an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..core.errors import InfrastructureFailure, Interrupted, UsageError
from ..core.outcome import VERDICTS
from ..core.proposal import ProposerError
from ..core.text import clean, one_line
from ..ledger.store import LedgerUnavailable

MESSAGES = (ProposerError, InfrastructureFailure, Interrupted, LedgerUnavailable, UsageError)
"""Exceptions whose message is written for users; their traceback is not shown."""

PACKAGE = Path(__file__).resolve().parent.parent

REASON_CHARS = 500


def words(error: BaseException) -> str:
    """Return the message of any exception as one clean line."""
    try:
        text = str(error)
    except Exception:
        text = ""
    kind = type(error).__name__
    if isinstance(error, MESSAGES):
        return one_line(text, REASON_CHARS) or kind
    return one_line(f"{kind}: {text}" if text else kind, REASON_CHARS)


def shorten(report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Clean the report of a failure that is not a verdict, and make its summary one line.

    A traceback is shown only where the code of the user or of another plugin failed.
    """
    message = words(excinfo.value)
    shown: Any = report.longrepr
    if isinstance(excinfo.value, MESSAGES):
        shown = report.longrepr = excinfo.getrepr(style="value", chain=False)
        for entry in shown.reprtraceback.reprentries:
            entry.lines = [message]
    for traceback, crash, _ in getattr(shown, "chain", ()):
        others = [entry for entry in traceback.reprentries if not _is_ours(entry)]
        if others and others[-1] is traceback.reprentries[-1]:
            traceback.reprentries[:] = others
        for entry in traceback.reprentries:
            entry.lines = [clean(line) for line in entry.lines]
        if crash is not None:
            crash.message = one_line(crash.message, REASON_CHARS)
    if (last := getattr(shown, "reprcrash", None)) is not None:
        last.message = message


def _is_ours(entry: Any) -> bool:
    place = getattr(entry, "reprfileloc", None)
    return place is not None and Path(place.path).resolve().is_relative_to(PACKAGE)


def shape(report: pytest.TestReport, error: BaseException, verdict: str, *, fails: bool) -> None:
    """Set the outcome and message of a report from the verdict.

    Args:
        report: Report of the call phase.
        error: The exception of the call phase; its reason is shown.
        verdict: The recorded verdict.
        fails: Report a failed test instead of an expected failure.
    """
    report.autoresearch = verdict  # type: ignore[attr-defined]
    reason = getattr(error, "autoresearch_reason", None) or getattr(error, "reason", error)
    if fails:
        report.longrepr = f"{verdict}: {reason}"
    else:
        report.outcome = "skipped"
        report.wasxfail = f"{verdict}: {reason}"


def status(report: pytest.TestReport, quiet: bool) -> Any:
    """Return category, letter and word of a verdict, as `pytest_report_teststatus` does.

    Args:
        report: Report of any phase.
        quiet: Return no letter, because the attempt has a result line.
    """
    verdict = getattr(report, "autoresearch", None)
    if report.skipped and quiet and verdict is None:
        return "skipped", "", ("SKIPPED", {"yellow": True})
    if report.failed and quiet:
        word = "failed" if report.when == "call" else "error"
        return word, "", (word.upper(), {"red": True})
    if verdict not in VERDICTS or report.failed:
        return None
    shown = VERDICTS[verdict]
    if quiet:
        return shown.word, "", ""
    return shown.word, shown.letter, (verdict.upper(), {shown.colour: True})
