"""Attempts as Trackio runs: one project a campaign, kept on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ..core.records import Attempt
from . import campaign, home, numbers, texts


@pytest.hookimpl(optionalhook=True)
def pytest_autoresearch_attempt_finished(record: Attempt, artifacts: Mapping[str, Path]) -> None:
    """Log a finished attempt; ``trackio show`` with the same ``TRACKIO_DIR`` shows it."""
    os.environ.setdefault("TRACKIO_DIR", str(home(artifacts, "trackio")))
    import trackio  # type: ignore[import-not-found, unused-ignore]  # reads TRACKIO_DIR on import

    with contextlib.redirect_stdout(None):  # trackio prints a greeting for each run
        trackio.init(project=campaign(artifacts), name=record.name, config=texts(record))
        trackio.log(numbers(record), step=record.number)
        trackio.finish()
