"""Check machine, project and campaign, and print a remedy for each problem."""

from __future__ import annotations

import os
import platform
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal

import pytest

from ..campaign.project import check, default_tag, experiment_at
from ..core.errors import UsageError
from ..core.experiment import Experiment
from ..ledger.git import Repository, RepositoryError
from ..ledger.repair import Commits
from ..ledger.store import Ledger, LedgerUnavailable
from ..proposers.registry import CREDENTIALS, default
from ..sandbox.launch import survey
from ..training.devices import cpu_name, default_budget, memory_bytes, visible_gpus

State = Literal["ok", "warn", "fix"]

MIN_FREE_BYTES = 2 * 2**30

MIN_PYTHON = (3, 11)


@dataclass(frozen=True)
class Finding:
    """Result of one check.

    Attributes:
        name: What was checked.
        state: ``ok``; ``warn``: it works with restrictions; ``fix``: it does not work.
        detail: Details and, unless ok, the remedy.
    """

    name: str
    state: State
    detail: str


def doctor(root: Path, say: Callable[[str], object] = print) -> int:
    """Check everything that a session needs.

    Returns:
        Exit code: 1 if something must be fixed, else 0.
    """
    worst = 0
    for finding in examine(root):
        say(f"{finding.state:5}{finding.name:10}{finding.detail}")
        worst |= finding.state == "fix"
    return int(worst)


def examine(root: Path) -> Iterator[Finding]:
    """Yield all findings: machine, project, campaign, API keys."""
    for one in (_python, _torch, _device, _clock, _disk, _sandbox):
        yield _careful(one, root)
    yield from _project(root)
    yield _keys(root)


def _careful(one: Callable[[Path], Finding], root: Path) -> Finding:
    try:
        return one(root)
    except Exception as error:
        return Finding(one.__name__.strip("_"), "fix", f"{type(error).__name__}: {error}")


def _python(root: Path) -> Finding:
    running = platform.python_version()
    if sys.version_info < MIN_PYTHON:
        return Finding("python", "fix", f"{running}; use 3.11 or newer")
    return Finding("python", "ok", f"{running}, pytest {pytest.__version__}")


def _torch(root: Path) -> Finding:
    try:
        return Finding("torch", "ok", version("torch"))
    except PackageNotFoundError:
        return Finding("torch", "fix", "not installed; run: pip install -c constraints.txt torch")


def _device(root: Path) -> Finding:
    memory = f"{memory_bytes() / 2**30:.0f} GiB"
    if gpus := visible_gpus():
        return Finding("device", "ok", f"{len(gpus)} GPU(s), {memory}; {default_budget('cuda')}")
    return Finding(
        "device", "ok", f"{os.cpu_count()} x {cpu_name()}, {memory}; {default_budget('cpu')}"
    )


def _clock(root: Path) -> Finding:
    began, wall = time.monotonic(), time.time()
    time.sleep(0.2)
    drift = abs((time.time() - wall) - (time.monotonic() - began))
    if drift > 0.05:
        return Finding(
            "clock", "warn", f"the wall clock moved by {drift:.2f} s in 0.2 s; is it set?"
        )
    return Finding("clock", "ok", time.strftime("%Y-%m-%d %H:%M:%S %Z"))


def _disk(root: Path) -> Finding:
    free = shutil.disk_usage(root).free
    if free < MIN_FREE_BYTES:
        return Finding("disk", "warn", f"{free / 2**30:.1f} GiB free; kept checkpoints need room")
    return Finding("disk", "ok", f"{free / 2**30:.0f} GiB free")


def _sandbox(root: Path) -> Finding:
    report = survey()
    if report.lacking:
        open_to = ", ".join(report.lacking)
        reason = f"{report.headline()}; nothing confines {open_to}, so scores will be unverified"
        return Finding("sandbox", "warn", reason)
    return Finding("sandbox", "ok", report.headline())


def _project(root: Path) -> Iterator[Finding]:
    try:
        experiment = experiment_at(root)
        repository = check(root, experiment)
    except UsageError as error:
        yield Finding("project", "fix", str(error))
        return
    except Exception as error:
        yield Finding("project", "fix", f"conftest.py: {type(error).__name__}: {error}")
        return
    tag = default_tag(repository)
    yield Finding("git", "ok", f"commit {repository.head()[:10]}, campaign {tag}")
    if experiment.data is not None and experiment.run is None:
        yield _data(root / experiment.data)
    yield _campaign(root, tag, repository, experiment.files)


def _data(folder: Path) -> Finding:
    from ..data.dataset import Dataset, DatasetError

    try:
        dataset = Dataset.open(folder)
        dataset.verify()
    except DatasetError as error:
        return Finding("data", "fix", str(error))
    return Finding("data", "ok", f"{folder.name}, every file as prepared ({dataset.sha256[:12]})")


def _campaign(root: Path, tag: str, repository: Repository, names: Sequence[str]) -> Finding:
    try:
        if not Ledger.exists(root, tag):
            repository.check_branch(tag, [])
            return Finding("campaign", "ok", f"{tag} is not started yet")
        with closing(Ledger.open(root, tag)) as ledger:
            return _commits(tag, repository, ledger, Commits(repository, ledger, names))
    except (LedgerUnavailable, RepositoryError) as error:
        return Finding("campaign", "fix", str(error))


def _commits(tag: str, repository: Repository, ledger: Ledger, commits: Commits) -> Finding:
    """Check commits and refs of a campaign; make again what git has lost."""
    attempts, champions = ledger.attempts(), ledger.champions()
    missing = commits.lost()
    if unmade := commits.remake(missing):
        which = ", ".join(f"{one.name} ({one.commit[:10]})" for one in unmade[:3])
        return Finding(
            "campaign", "fix",
            f"{tag}: git has lost {len(unmade)} commits: {which}; fetch them from another clone "
            "(git fetch), or go on with another --autoresearch-tag",
        )  # fmt: skip
    ours = [champion.commit for champion in champions]
    if ours and (problems := repository.project(tag, ours, ledger.commits())):
        return Finding("campaign", "fix", problems[0])
    best = f", champion {champions[-1].mean:.6f}" if champions else ", no baseline yet"
    made = f"; {len(missing)} lost commits were made again" if missing else ""
    tried = sum(attempt.kind != "baseline" for attempt in attempts)
    return Finding("campaign", "ok", f"{tag}: {tried} attempts{best}{made}")


def _keys(root: Path) -> Finding:
    try:
        experiment = experiment_at(root)
    except Exception:  # reported with the project
        experiment = Experiment()
    present = [name for name in (*CREDENTIALS, "OPENAI_API_KEY") if os.environ.get(name)]
    if not present:
        return Finding("keys", "ok", f"none; {default(experiment)} proposes")
    return Finding("keys", "ok", f"{', '.join(present)} set (not shown, not checked)")
