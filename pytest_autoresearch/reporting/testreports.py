"""pytest's report of a slot: a verdict is an expected outcome, infrastructure an error."""

from __future__ import annotations

from typing import Any

import pytest

from ..outcome import LETTERS


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
        quiet: The slot has a line of its own, and needs no letter.
    """
    verdict = getattr(report, "autoresearch", None)
    if report.failed and quiet:
        word = "failed" if report.when == "call" else "error"
        return word, "", (word.upper(), {"red": True})
    if verdict not in LETTERS or report.failed:
        return None
    word, letter, colour = LETTERS[verdict]
    return (word, "", "") if quiet else (word, letter, (verdict.upper(), {colour: True}))
