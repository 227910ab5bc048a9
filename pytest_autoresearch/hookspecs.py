"""Hooks for plugins and ``conftest.py`` files, and how they are called."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .core.records import Attempt

ATTEMPT_FINISHED = "pytest_autoresearch_attempt_finished"

FAILURES = (Exception, SystemExit, pytest.fail.Exception, pytest.skip.Exception)

log = logging.getLogger("pytest_autoresearch")


@pytest.hookspec()
def pytest_autoresearch_attempt_finished(record: Attempt, artifacts: Mapping[str, Path]) -> None:
    """Handle an attempt that has its verdict.

    Called in the driver (never in an xdist worker), after the verdict is recorded and the logs are
    written. An exception is logged and changes nothing. The next result line waits for the hook.

    Args:
        record: The attempt with its verdict, proposal and runs. Read-only.
        artifacts: Existing files by name: ``ledger``, ``tsv``, ``junit``, ``html``, ``checkpoint``
            and ``losses`` (of the last run, of keeps only). The folder of the ledger has the name
            of the campaign.
    """


def announce(
    plugins: pytest.PytestPluginManager,
    record: Attempt,
    artifacts: Mapping[str, Path],
    say: Callable[[str], object] | None = None,
) -> None:
    """Call `pytest_autoresearch_attempt_finished` of every plugin, even if another one raised.

    Args:
        plugins: The plugin manager.
        record: The attempt.
        artifacts: Files by name; missing ones are left out.
        say: Prints one line for each failure.
    """
    existing = {name: path for name, path in artifacts.items() if path.exists()}
    hook = getattr(plugins.hook, ATTEMPT_FINISHED)
    listening = [implementation.plugin for implementation in hook.get_hookimpls()]
    for plugin in listening:
        others = [other for other in listening if other is not plugin]
        try:
            plugins.subset_hook_caller(ATTEMPT_FINISHED, others)(record=record, artifacts=existing)
        except FAILURES as error:
            name = plugins.get_name(plugin) or repr(plugin)
            log.exception("%s of %s failed", ATTEMPT_FINISHED, name)
            if say is not None:
                say(f"{name} failed for {record.name}: {type(error).__name__}: {error}")


def artifacts_of(record: Attempt, ledger: Path, **files: Path | None) -> dict[str, Path]:
    """Return the files of an attempt by name, as `pytest_autoresearch_attempt_finished` gets them.

    Args:
        record: The attempt.
        ledger: Ledger file of the campaign.
        files: Logs by name; None for one that is not written.
    """
    paths = {"ledger": ledger, **files}
    for run in record.own_runs[-1:]:
        paths |= {"checkpoint": run.checkpoint, "losses": run.losses}
    return {name: path for name, path in paths.items() if path is not None}
