"""pytest's report of an attempt: a verdict is an expected outcome, infrastructure an error."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from ..core.errors import InfrastructureFailure, Interrupted
from ..core.outcome import LETTERS
from ..core.proposal import ProposerError
from ..core.text import clean, one_line
from ..ledger.store import LedgerUnavailable

OURS = (ProposerError, InfrastructureFailure, Interrupted, LedgerUnavailable)
"""What is raised with words for a person; where it was raised tells nobody anything."""

PACKAGE = Path(__file__).resolve().parent.parent

REASON_CHARS = 500


def words(error: BaseException) -> str:
    """Return what an exception says as one clean line; it may be anybody's."""
    try:
        said = str(error)
    except Exception:
        said = ""
    kind = type(error).__name__
    if isinstance(error, OURS):
        return one_line(said, REASON_CHARS) or kind
    return one_line(f"{kind}: {said}" if said else kind, REASON_CHARS)


def shorten(report: pytest.TestReport, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
    """Make a failure that is no verdict fit to be shown: clean, in its summary one line.

    A traceback is left where somebody else's code failed, without our part of it.
    """
    said = words(excinfo.value)
    shown: Any = report.longrepr
    if isinstance(excinfo.value, OURS):
        shown = report.longrepr = excinfo.getrepr(style="value", chain=False)
        for entry in shown.reprtraceback.reprentries:
            entry.lines = [said]
    for traceback, crash, _ in getattr(shown, "chain", ()):
        others = [entry for entry in traceback.reprentries if not _is_ours(entry)]
        if others and others[-1] is traceback.reprentries[-1]:
            traceback.reprentries[:] = others
        for entry in traceback.reprentries:
            entry.lines = [clean(line) for line in entry.lines]
        if crash is not None:
            crash.message = one_line(crash.message, REASON_CHARS)
    if (last := getattr(shown, "reprcrash", None)) is not None:
        last.message = said


def _is_ours(entry: Any) -> bool:
    place = getattr(entry, "reprfileloc", None)
    return place is not None and Path(place.path).resolve().is_relative_to(PACKAGE)


def shape(report: pytest.TestReport, error: BaseException, verdict: str, *, fails: bool) -> None:
    """Make a report say what the verdict was.

    Args:
        report: Of the call phase, which raised.
        error: What it raised; its reason is shown.
        verdict: As it was recorded.
        fails: Report it as a failed test, not as an expected failure.
    """
    report.autoresearch = verdict  # type: ignore[attr-defined]
    said = getattr(error, "autoresearch_reason", None) or getattr(error, "reason", error)
    if fails:
        report.longrepr = f"{verdict}: {said}"
    else:
        report.outcome = "skipped"
        report.wasxfail = f"{verdict}: {said}"


def status(report: pytest.TestReport, quiet: bool) -> Any:
    """Return category, letter and word of a verdict, as `pytest_report_teststatus` does.

    Args:
        report: Of any phase.
        quiet: The attempt has a line of its own, and needs no letter.
    """
    verdict = getattr(report, "autoresearch", None)
    if report.skipped and quiet and verdict is None:
        return "skipped", "", ("SKIPPED", {"yellow": True})
    if report.failed and quiet:
        word = "failed" if report.when == "call" else "error"
        return word, "", (word.upper(), {"red": True})
    if verdict not in LETTERS or report.failed:
        return None
    word, letter, colour = LETTERS[verdict]
    return (word, "", "") if quiet else (word, letter, (verdict.upper(), {colour: True}))
