"""Remove the files of runs that nothing needs any more."""

from __future__ import annotations

import re
from contextlib import suppress
from pathlib import Path

from ..core.files import remove_tree, sweep
from ..ledger.status import drop_dead_status
from ..ledger.store import Ledger
from ..training.context import CHECKPOINT, LOSSES

RUNS = "runs"
"""Folder of a campaign's run directories."""

_RUN = re.compile(r"(\d{5,})-[a-z]+-\d+")


def run_name(attempt_id: int, purpose: str, seed: int) -> str:
    """Return the name of a run's folder."""
    return f"{attempt_id:05d}-{purpose}-{seed}"


def tidy(run: Path, keep: bool) -> None:
    """Remove a run's folder, or all of it but the checkpoint and its losses."""
    if not keep:
        remove_tree(run)
        return
    for path in run.iterdir():
        if path.name not in (CHECKPOINT, LOSSES):
            remove_tree(path)


def discard_files(runs: Path, attempt_id: int) -> None:
    """Remove the folders of an attempt's runs."""
    for path in runs.glob(f"{attempt_id:05d}-*"):
        if _RUN.fullmatch(path.name):
            remove_tree(path)


def sweep_campaign(root: Path, ledger: Ledger) -> None:
    """Remove what killed processes left, and every run's files but the checkpoints of keeps.

    Attempts that run are left alone, so that this is safe at any time.
    """
    folder = ledger.path.parent
    found = sorted((folder / RUNS).glob("*"))  # before the rows: a row precedes its folder
    running, kept = set(), set()
    for attempt in ledger.attempts():
        if attempt.state == "running" or any(run.state == "running" for run in attempt.runs):
            running.add(attempt.id)
        elif attempt.verdict in ("keep", "baseline"):
            kept |= {run.checkpoint.parent.name for run in attempt.runs if run.checkpoint}
    with suppress(OSError):
        for path in found:
            if (name := _RUN.fullmatch(path.name)) and int(name[1]) not in running:
                tidy(path, keep=path.name in kept)
        drop_dead_status(folder)
        sweep(root)
