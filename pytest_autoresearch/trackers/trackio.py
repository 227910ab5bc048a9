"""Attempts as Trackio runs: one project a campaign, kept on this machine."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest

from ..core.records import Attempt
from . import campaign, figures, home, words


@pytest.hookimpl(optionalhook=True)
def pytest_autoresearch_attempt_finished(record: Attempt, artifacts: Mapping[str, Path]) -> None:
    """Log one finished attempt; ``trackio show`` with the same ``TRACKIO_DIR`` shows them."""
    os.environ.setdefault("TRACKIO_DIR", str(home(artifacts, "trackio")))
    # imported late, since it reads the variable when it is
    import trackio  # type: ignore[import-not-found, unused-ignore]

    with contextlib.redirect_stdout(None):  # it greets, run by run
        trackio.init(project=campaign(artifacts), name=record.name, config=words(record))
        trackio.log(figures(record), step=record.number)
        trackio.finish()
