"""Hooks that a plugin or a ``conftest.py`` may implement, and how they are called."""

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
    """An attempt has its verdict.

    Called in the process that a person started (never in a worker of xdist), after the verdict is
    recorded and the logs are written. What it raises is logged and changes nothing. The next
    result line waits for it, so it should not take long.

    Args:
        record: The attempt with its verdict, proposal and trials. Read-only.
        artifacts: Files that exist, by name: ``ledger``, and where there are any ``tsv``,
            ``junit``, ``html``, ``checkpoint`` and ``losses`` (of the last trial; those of what
            is not kept are removed). The ledger's folder bears the campaign's name.
    """


def announce(
    plugins: pytest.PytestPluginManager,
    record: Attempt,
    artifacts: Mapping[str, Path],
    say: Callable[[str], object] | None = None,
) -> None:
    """Call `pytest_autoresearch_attempt_finished` of every plugin, whatever another one raised.

    Args:
        plugins: pytest's.
        record: The attempt.
        artifacts: Files by name; those that do not exist are left out.
        say: Told about failures, one line each.
    """
    found = {name: path for name, path in artifacts.items() if path.exists()}
    hook = getattr(plugins.hook, ATTEMPT_FINISHED)
    listening = [implementation.plugin for implementation in hook.get_hookimpls()]
    for plugin in listening:
        others = [other for other in listening if other is not plugin]
        try:
            plugins.subset_hook_caller(ATTEMPT_FINISHED, others)(record=record, artifacts=found)
        except FAILURES as error:
            name = plugins.get_name(plugin) or repr(plugin)
            log.exception("%s of %s failed", ATTEMPT_FINISHED, name)
            if say is not None:
                say(f"{name} was told of {record.name} and failed: {type(error).__name__}: {error}")


def artifacts_of(record: Attempt, ledger: Path, **files: Path | None) -> dict[str, Path]:
    """Return the files of an attempt by name, as `pytest_autoresearch_attempt_finished` gets them.

    Args:
        record: The attempt.
        ledger: The campaign's ledger file.
        files: Logs by name; None for one that is not written.
    """
    last = record.own_runs[-1:]
    own = {
        name: path
        for run in last
        for name, path in (("checkpoint", run.checkpoint), ("losses", run.losses))
    }
    found = {"ledger": ledger, **files, **own}
    return {name: path for name, path in found.items() if path is not None}
