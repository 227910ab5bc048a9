"""A baseline that cannot be measured or recorded never blocks a session."""

from __future__ import annotations

import re
import resource
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest
from support.project import Project

from pytest_autoresearch import Budget, Experiment
from pytest_autoresearch.campaign.facts import CampaignFacts, SessionSettings
from pytest_autoresearch.campaign.open import CampaignResources
from pytest_autoresearch.campaign.pause import PauseControl
from pytest_autoresearch.core.errors import BaselineFailed
from pytest_autoresearch.core.proposal import ProposerExhausted
from pytest_autoresearch.ledger.store import Ledger

IMPATIENT = """
from pytest_autoresearch.ledger import database
from pytest_autoresearch.campaign import loop
database.BUSY_TIMEOUT_S = 0.3
loop.RETRY_S = (1.0, 1.0)
"""

SLOW = """\
import os, time
SCORE = 1.0
# ideas go here
time.sleep(2 if os.environ["AUTORESEARCH_SEED"] == "1" else 0)
print("METRIC:", SCORE)
"""


@contextmanager
def session(project: Project, *args: str) -> Iterator[subprocess.Popen[str]]:
    """Run a session beside the test."""
    project.write("conftest.py", (project.path / "conftest.py").read_text() + IMPATIENT)
    project.commit("no patience")
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-proposer=replay:ideas",
         "--autoresearch-confirm=0", "--autoresearch-html=off", "-p", "no:cacheprovider", *args],
        cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def until_baseline_runs(project: Project) -> None:
    while not Ledger.exists(project.path, "main"):
        time.sleep(0.05)
    ledger = project.ledger()
    while not any(run.state == "running" for run in ledger.runs()):
        time.sleep(0.05)
    ledger.close()


def until_printed(process: subprocess.Popen[str], word: str) -> str:
    assert process.stdout is not None
    return next(line for line in process.stdout if word in line)


@contextmanager
def locked(process: subprocess.Popen[str], ledger: Path) -> Iterator[None]:
    """Hold the write lock of the ledger."""
    with sqlite3.connect(ledger, isolation_level=None) as db:
        db.execute("BEGIN IMMEDIATE")
        yield
        db.execute("ROLLBACK")
    db.close()


@contextmanager
def full_disk(process: subprocess.Popen[str], ledger: Path) -> Iterator[None]:
    """Let every write of the session fail."""
    before = resource.prlimit(process.pid, resource.RLIMIT_FSIZE, (1, resource.RLIM_INFINITY))
    yield
    with suppress(ProcessLookupError):
        resource.prlimit(process.pid, resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize(
    ("broken", "workers"), [(locked, ()), (locked, ("-n2",)), (full_disk, ())]
)
def test_a_baseline_whose_end_could_not_be_recorded_is_measured_again(
    make_project: Callable[..., Project], broken: Callable, workers: tuple[str, ...]
) -> None:
    project = make_project(train=SLOW)
    project.propose(0.5)
    with session(project, "--iterations=1", *workers) as process:
        until_baseline_runs(project)
        with broken(process, project.path / ".autoresearch/main/ledger.sqlite"):
            assert process.stdout is not None
            next(line for line in process.stdout if re.match("E .*baseline-1", line))
        until_printed(process, "1 kept")
        process.wait()
    assert process.returncode == 1  # one attempt was an infrastructure failure
    baselines = [a for a in project.ledger().attempts() if a.kind == "baseline"]
    assert {a.number for a in baselines if a.score is not None} == {1, 2, 3, 4, 5, 6}
    assert not any(a.state == "running" for a in baselines)
    assert project.verdicts() == ["keep"]


@pytest.mark.parametrize("broken", [locked, full_disk])
def test_a_ledger_that_cannot_be_written_any_more_ends_the_session(
    make_project: Callable[..., Project], broken: Callable
) -> None:
    project = make_project(train=SLOW)
    project.propose(0.5)
    with session(project) as process:  # as many attempts as there are
        until_baseline_runs(project)
        with broken(process, project.path / ".autoresearch/main/ledger.sqlite"):
            until_printed(process, "stopped:")
            process.wait()
    assert process.returncode == 1


@pytest.fixture
def resources(project: Project) -> Iterator[CampaignResources]:
    facts = CampaignFacts("", Budget("wall", 60.0), 1, 0, Experiment().metric, ("train.py",))
    found = CampaignResources(
        project.path, "main", Experiment(run=("true",)), facts, SessionSettings(), driver="one run"
    )
    yield found
    found.close()


def test_waiting_for_the_baseline_of_another_worker_ends_with_the_session(
    resources: CampaignResources,
) -> None:
    worker = resources.ledger.begin_session(driver="one run", worker="gw1")
    for number in (1, 2):  # one seed, two random streams
        resources.ledger.start_attempt(
            session_id=worker, worker="gw1", name=f"baseline-{number}", kind="baseline", number=number
        )
    reasons = iter(["", "", "deadline reached"])
    resources.pauses = PauseControl(lambda: next(reasons))
    campaign = resources.open()
    for kind in ("mutation", "baseline"):
        reasons = iter(["", "", "deadline reached"])
        with pytest.raises(ProposerExhausted, match="deadline reached"):
            campaign.begin(f"{kind}-1", kind, 1)


def test_a_baseline_that_failed_in_another_worker_is_not_trained_again(
    resources: CampaignResources,
) -> None:
    ledger = resources.ledger
    worker = ledger.begin_session(driver="one run", worker="gw1")
    attempt = ledger.start_attempt(
        session_id=worker, worker="gw1", name="baseline-1", kind="baseline", number=1
    )
    ledger.finish_attempt(attempt.id, verdict="crash", reason="no data")
    with pytest.raises(BaselineFailed, match=r"no data; fix train\.py and run again"):
        resources.open().begin("mutation-1", "mutation", 1)
    assert ledger.runs() == []


def test_a_deadline_ends_the_session_during_the_calibration(
    make_project: Callable[..., Project],
) -> None:
    project = make_project(train=SLOW)
    project.propose(0.5)
    result = project.run("--autoresearch-deadline=1s")
    result.stdout.fnmatch_lines(["*stopped: deadline reached"])
    assert [a.name for a in project.ledger().attempts()] == ["baseline-1"]


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_a_failing_baseline_ends_the_session_with_its_cause(
    project: Project, workers: tuple[str, ...]
) -> None:
    project.write("train.py", "raise SystemExit('no data')\n")
    project.commit("broken")
    project.propose(0.5)
    result = project.run("--iterations=9", *workers)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*baseline-1*no data*", "*there is no usable baseline*"])
    attempts = project.ledger().attempts()
    assert len(attempts) == max(1, 2 * len(workers))  # a second worker's was in flight
    assert {a.verdict for a in attempts} == {"crash"}


def test_a_noisy_baseline_ends_the_session_with_its_cause(project: Project) -> None:
    project.propose(0.5)
    result = project.run("--iterations=9", "--autoresearch-max-noise=0.00001")
    assert result.ret == 1
    assert str(result.stdout).count("E -----") == 1
    result.stdout.fnmatch_lines(["*stopped: there is no usable baseline*"])
