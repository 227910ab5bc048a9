"""Pauses for temporarily unavailable providers and devices."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.llm_campaign import idea
from support.project import Project
from support.wire.server import Wire

from pytest_autoresearch.ledger.spend import CostBudget

IMPATIENT = """
from pytest_autoresearch.proposers.llm.calls import RetryPolicy
RetryPolicy.__init__.__defaults__ = (1200.0, 600.0, 480.0, 0.01)
"""
OPTIONS = (
    "--autoresearch", "--autoresearch-proposer=anthropic", "--autoresearch-control=0",
    "--autoresearch-model=claude-sonnet-5-5", "--autoresearch-confirm=0", "-p", "no:cacheprovider",
)  # fmt: skip


def busy(seconds: float) -> dict:
    return {"status": 429, "headers": {"retry-after": f"{seconds}"}}


@pytest.fixture
def serve(project: Project, wire: Callable[..., Wire]) -> Callable[..., Wire]:
    project.write("conftest.py", (project.path / "conftest.py").read_text() + IMPATIENT)
    project.commit("no patience")
    return wire


@contextmanager
def session(project: Project, *args: str) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a session beside the test; yield its process and the file of its output."""
    printed = project.path / "ideas" / "printed.txt"
    printed.parent.mkdir(exist_ok=True)
    command = [sys.executable, "-m", "pytest", *OPTIONS, *args]
    with printed.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=project.path, stdout=file, stderr=file,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        )  # fmt: skip
    try:
        yield process, printed
    finally:
        process.kill()
        process.wait()


def wait_for(what: str, printed: Path) -> None:
    for _ in range(1200):
        if what in printed.read_text():
            return
        time.sleep(0.1)
    raise AssertionError(f"no {what!r} in {printed.read_text()}")


def test_retry_after_pauses_the_session(project: Project, serve) -> None:
    server = serve({"text": idea(0.9)}, busy(2), busy(2), busy(1), {"text": idea(0.8)})
    began = time.monotonic()
    result = project.pytester.runpytest_subprocess(*OPTIONS, "--iterations=2", timeout=120)
    assert time.monotonic() - began > 3
    assert result.ret == 0
    assert project.verdicts() == ["keep", "keep"]
    [*_, last] = re.findall(r"\npaused until \w+ \d\d:\d\d:\d\d: (.*)", result.stdout.str())
    assert last.startswith(
        "Anthropic's API, which asks to wait 1 s: RateLimitError: Error code: 429"
    )
    assert len(server.requests) == 5


def test_overloaded_provider_is_retried_until_it_answers(project: Project, serve) -> None:
    server = serve(*[{"status": 529, "type": "overloaded_error"}] * 20, {"text": idea(0.9)})
    result = project.pytester.runpytest_subprocess(
        *OPTIONS, "--iterations=1", "--autoresearch-max-failures=1", timeout=120
    )
    assert result.ret == 0
    assert project.verdicts() == ["keep"]
    assert len(server.requests) == 21
    result.stdout.fnmatch_lines(["paused until *: Anthropic's API: *OverloadedError*"])


@pytest.mark.parametrize(("how", "code"), [("STOP", 0), ("Ctrl-C", 2), ("SIGTERM", 2)])
def test_stop_during_a_pause_takes_effect_at_once(
    project: Project, serve, how: str, code: int
) -> None:
    serve(busy(3600))
    with session(project, "--iterations=3") as (process, printed):
        wait_for("paused until", printed)
        if how == "STOP":
            (project.path / ".autoresearch/main/STOP").touch()
        else:
            process.send_signal(signal.SIGINT if how == "Ctrl-C" else signal.SIGTERM)
        assert process.wait(60) == code
        assert ("STOP exists" in printed.read_text()) == (how == "STOP")
    assert project.verdicts() == ["interrupted"]


@pytest.mark.parametrize(
    ("deadline", "code", "state"), [("1h", 1, "infra"), ("5min", 0, "interrupted")]
)
def test_pause_beyond_the_deadline_ends_the_session_at_once(
    project: Project, serve, deadline: str, code: int, state: str
) -> None:
    server = serve({"text": idea(0.9)}, busy(7200))
    began = time.monotonic()
    result = project.pytester.runpytest_subprocess(
        *OPTIONS, "--iterations=5", f"--autoresearch-deadline={deadline}", timeout=120
    )
    assert time.monotonic() - began < 60
    assert result.ret == code  # nobody wished for an hour less
    assert project.verdicts() == ["keep", state]
    result.stdout.fnmatch_lines(["*stopped: Anthropic's API, *7200 s*is after the deadline*"])
    assert len(server.requests) == 3  # the draft, and once more when its turn came


def test_retry_after_above_12_hours_fails_the_attempt(project: Project, serve) -> None:
    serve(busy(100_000))
    result = project.pytester.runpytest_subprocess(
        *OPTIONS, "--iterations=5", "--autoresearch-max-failures=2", timeout=120
    )
    assert result.ret == 1
    assert project.verdicts() == ["infra", "infra"]
    result.stdout.fnmatch_lines(["*stopped: 2 attempts in a row failed*100000 s*"])


def test_cost_limit_reached_during_a_pause_ends_it(project: Project, serve) -> None:
    serve(busy(5), busy(5), {"text": idea(0.9)})  # the first is for the draft
    with session(project, "--iterations=3", "--autoresearch-max-cost=1usd") as (process, printed):
        wait_for("paused until", printed)
        cost_budget = CostBudget(project.ledger().path)
        cost_budget.settle(cost_budget.reserve("another worker's", 1.0), 1.0)
        assert process.wait(60) == 0
        wait_for("stopped: $1.00 of $1.00 are spent", printed)
    assert project.verdicts() == ["interrupted"]


BROKEN = """
import pathlib, threading
from pytest_autoresearch.campaign import loop
loop.RETRY_S = (2.0, 2.0)

def pytest_runtest_setup(item):
    runs = pathlib.Path(".autoresearch/main/runs")
    if item.name == "mutation-0001":
        runs.rename("ideas/runs")
        runs.write_text("a disk that is gone")
        threading.Timer(SECONDS, lambda: (runs.unlink(), pathlib.Path("ideas/runs").rename(runs))).start()
"""


@pytest.mark.parametrize(
    ("seconds", "verdicts"), [(2.5, ["keep", "keep"]), (7.0, ["infra", "keep"])]
)
def test_run_failed_by_infrastructure_is_retried_in_its_attempt(
    project: Project, seconds: float, verdicts: list[str]
) -> None:
    conftest = (project.path / "conftest.py").read_text()
    project.write("conftest.py", conftest + BROKEN.replace("SECONDS", str(seconds)))
    project.commit("a disk that goes")
    project.propose(0.9, 0.8)
    result = project.run("--iterations=2", "--autoresearch-confirm=0")
    assert project.verdicts() == verdicts
    assert result.ret == ("infra" in verdicts)
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [t.status for t in attempts[0].runs][-1] == ("infra" if "infra" in verdicts else "ok")
    assert attempts[1].title == ("score 0.9" if "infra" in verdicts else "score 0.8")
    result.stdout.fnmatch_lines(["paused until *: mutation-0001: *; it is tried again"])


@pytest.mark.slow
def test_driver_prints_the_pause_of_a_worker(project: Project, serve) -> None:
    serve(busy(2), busy(2), {"text": idea(0.9)}, {"text": idea(0.8)})
    result = project.pytester.runpytest_subprocess(*OPTIONS, "-n1", "--iterations=2", timeout=120)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["paused until *: Anthropic's API, which asks to wait 2 s*"])
    assert project.verdicts() == ["keep", "keep"]
