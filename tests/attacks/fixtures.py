"""The fixture ``arena``, for tests that name this module in ``pytest_plugins``."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from pytest_autoresearch.sandbox.launch import survey

from .arena import Arena, open_arena


@pytest.fixture(scope="session")
def arena(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Arena]:
    """Open the arena; under xdist all workers share its data and its honest weights."""
    report = survey()
    if not report.verified:
        pytest.skip(f"this machine cannot confine a candidate: {report.headline()}")
    own = tmp_path_factory.mktemp("arena")
    shared = own.parent.parent if "PYTEST_XDIST_WORKER" in os.environ else own
    with open_arena(own, shared) as opened:
        yield opened
