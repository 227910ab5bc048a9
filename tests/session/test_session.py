"""A session ends properly whatever ends it, and its report is true."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from support.project import TRAIN, Project

from pytest_autoresearch import Metric
from pytest_autoresearch.core.processes import process_start
from pytest_autoresearch.core.proposal import ProposerUnavailable
from pytest_autoresearch.ledger.store import Ledger, LedgerUnavailable
from pytest_autoresearch.session import testreports
from pytest_autoresearch.session.reporter import Logs
from pytest_autoresearch.session.stopping import Signals, exit_code

SLOW = (
    "Title: slow\n\ntrain.py\n<<<<<<< SEARCH\nSLEEP = 0.0\n=======\nSLEEP = {}\n>>>>>>> REPLACE\n"
)
OWN = """
from pytest_autoresearch import Edit
from pytest_autoresearch.core.processes import process_start
from pytest_autoresearch.core.proposal import Proposal, ProposerUnavailable

class Mine:
    name = "mine"
    def __init__(self, *_):
        pass
    def propose(self, context):
        if context.attempt == 2:
            FAULT
        edit = Edit("train.py", "# ideas go here", f"SCORE = 1.{context.attempt}\\n# ideas go here")
        return Proposal(f"idea {context.attempt}", (edit,))
    def close(self):
        CLOSE
"""
SECRET = "sk-ant-" + "x" * 20
RAW = f'"key {SECRET} is \\x1b[31mbad\\nsecond line\\n" * 3'


def own(project: Project, fault: str, close: str = "pass") -> tuple[str, ...]:
    """Write a proposer; return the options that select it."""
    project.write("mine.py", OWN.replace("FAULT", fault).replace("CLOSE", close))
    project.commit("a proposer")
    project.pytester.syspathinsert()
    return ("--autoresearch-proposer=mine:Mine", "--autoresearch-confirm=0")


@contextmanager
def running(
    project: Project, *args: str, purpose: str = "first"
) -> Iterator[tuple[subprocess.Popen[bytes], Path]]:
    """Run a session beside the test until a run of `purpose` trains; yield process and output."""

    def as_from_a_terminal() -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)

    def trains() -> bool:
        if not (project.path / ".autoresearch/main/ledger.sqlite").exists():
            return False
        return [t.purpose for t in project.ledger().runs() if t.state == "running"] == wanted

    wanted = [purpose] * (2 if "-n2" in args else 1)
    printed = project.path / "ideas/printed.txt"
    command = [sys.executable, "-m", "pytest", "--autoresearch", "-p", "no:cacheprovider",
               "--autoresearch-proposer=replay:ideas", *args]  # fmt: skip
    with printed.open("wb") as file:
        process = subprocess.Popen(
            command, cwd=project.path, stdout=file, stderr=file, preexec_fn=as_from_a_terminal
        )
    try:
        ends = time.monotonic() + 120
        while not trains():
            assert time.monotonic() < ends, printed.read_text()
            time.sleep(0.05)
        yield process, printed
    finally:
        process.kill()
        process.wait()


def test_summary_after_ctrl_c_shows_nothing_running(project: Project) -> None:
    project.propose(SLOW.format(60))
    with running(project, "--iterations=2") as (process, printed):
        process.send_signal(signal.SIGINT)
        assert process.wait(60) == 2
        assert "campaign main: 1 attempts (1 interrupted)" in printed.read_text()
    [attempt] = [attempt for attempt in project.ledger().attempts() if attempt.kind == "mutation"]
    assert attempt.reason == "the session was interrupted"


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_to_the_driver_alone_ends_its_workers(project: Project, number: int) -> None:
    project.propose(*(SLOW.format(300 + i) for i in range(6)))
    with running(project, "--iterations=6", "-n2") as (process, printed):
        began = time.monotonic()
        process.send_signal(number)
        assert process.wait(120) == 2
        assert time.monotonic() - began < 60
        assert "2 attempts (2 interrupted)" in printed.read_text()
    attempts = [attempt for attempt in project.ledger().attempts() if attempt.kind == "mutation"]
    assert {attempt.reason for attempt in attempts} == {"the session was interrupted"}


def test_a_stop_condition_in_a_worker_ends_the_session_with_its_reason(project: Project) -> None:
    project.propose(0.5, 1.6, 1.7)
    result = project.run("--iterations=20", "-n2", timeout=100)
    assert result.ret == 0
    result.stdout.fnmatch_lines(["confirmed gain *", "stopped: all 3 recorded proposals are used"])
    assert not re.search(r"^s+([A-Z] |$)", result.stdout.str(), re.MULTILINE)  # no stray letters


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_exitfirst_ends_a_session_after_an_infrastructure_failure(project: Project, workers) -> None:
    options = own(project, "raise OSError('no network')")
    result = project.run("--iterations=9", "-x", *workers, *options, timeout=300)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR program.md::mutation-0002 - OSError: no network"])
    result.stdout.no_fnmatch_line("stopped: interrupted")
    result.stdout.no_fnmatch_line("*pytest_autoresearch/*.py*")
    attempts = project.ledger().attempts()
    assert {attempt.state for attempt in attempts} == {"done", "infra"}
    assert all(session.exit is not None for session in project.ledger().sessions())


def test_a_strict_session_that_stops_itself_exits_with_one(project: Project) -> None:
    project.propose(0.9)
    options = ("--autoresearch-strict", "--autoresearch-plateau=5", "--autoresearch-confirm=0")
    assert project.run("--iterations=0", "--autoresearch-target=0.95", *options).ret == 0


@pytest.mark.parametrize(
    ("status", "counts", "failures", "own_stop", "code"),
    [
        (0, {"baseline": 3, "discard": 2}, 0, False, 0),
        (0, {"crash": 2}, 0, False, 1),
        (0, {"crash": 2, "discard": 1}, 0, False, 0),
        (0, {"discard": 2, "infra": 1}, 1, False, 1),
        (1, {}, 0, False, 1),
        (2, {"discard": 2}, 0, False, 2),
        (2, {"discard": 2}, 0, True, 0),
        (2, {"discard": 2}, 1, True, 1),
        (3, {"keep": 1}, 0, True, 3),
        (4, {"keep": 1}, 0, True, 4),
        (5, {}, 0, True, 5),
    ],
)
def test_exit_codes_of_session_outcomes(
    status: int, counts: dict[str, int], failures: int, own_stop: bool, code: int
) -> None:
    assert exit_code(status, counts, failures, min_keep=0, own_stop=own_stop) == code


def test_a_signal_during_the_confirmation_is_an_interruption(make_project) -> None:
    train = TRAIN.replace("time.sleep(SLEEP)", "time.sleep(300 if seed >= 500 else 0)")
    project: Project = make_project(train=train)
    project.propose(0.5)
    options = ("--iterations=1", "--junitxml=log.xml")
    with running(project, *options, purpose="confirm") as (process, printed):
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 2
        assert "confirmation not finished: interrupted; go on with" in printed.read_text()
    assert project.verdicts() == ["keep"]
    assert "mutation-0001" in project.cases()


SIGNALLED = """
import atexit, signal
import pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    PLACE

def kill(number=signal.SIGINT):
    signal.raise_signal(number)
"""


@pytest.mark.parametrize(
    ("place", "code"),
    [
        ("kill()", 2),
        ("kill(signal.SIGTERM)", 2),
        ("atexit.register(kill)", 0),
        ("atexit.register(kill, signal.SIGTERM)", 0),
    ],
)
def test_a_signal_after_the_last_attempt_ends_without_a_traceback(
    project: Project, place: str, code: int
) -> None:
    project.write("late.py", SIGNALLED.replace("PLACE", place))
    project.pytester.syspathinsert()
    project.propose(0.5)
    result = project.run("--iterations=1", "--autoresearch-confirm=0", "-p", "late")
    assert result.ret == code
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    assert [session.exit for session in project.ledger().sessions()] == [code]
    assert "score 0.5" in (project.path / "results.tsv").read_text()


def test_a_campaign_continues_at_once_after_its_driver_was_killed(project: Project) -> None:
    project.propose(*(SLOW.format(300 + i) for i in range(6)))
    with running(project, "--iterations=6", "-n2") as (process, _):
        process.kill()
        process.wait()
    project.propose(1.5)
    done = project.command("try", "ideas/001.txt", "--autoresearch-confirm=0")
    assert done.returncode == 0, done.stderr
    assert project.verdicts()[-1] == "discard"
    sessions = project.ledger().sessions()
    assert not any(process_start(session.pid) == session.pid_start for session in sessions)


ANOTHER_FIRST = """
import os, subprocess, sys
import pytest

@pytest.hookimpl(trylast=True)
def pytest_configure():
    if os.environ.setdefault("OUTER", str(os.getpid())) == str(os.getpid()):
        subprocess.run([*COMMAND, "--iterations=2"], check=True, stdout=subprocess.DEVNULL)

COMMAND = [sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-confirm=0",
           "--autoresearch-proposer=replay:ideas", "-p", "no:cacheprovider"]
"""


def test_numbers_are_taken_after_the_campaign_is_locked(project: Project) -> None:
    conftest = (project.path / "conftest.py").read_text()
    project.write("conftest.py", ANOTHER_FIRST + conftest)
    project.commit("another session begins and ends meanwhile")
    project.propose(1.1, 1.2, 1.3)
    result = project.run("--iterations=1", "--autoresearch-confirm=0")
    assert result.ret == 0
    names = [attempt.name for attempt in project.ledger().attempts()]
    assert names[-3:] == ["mutation-0001", "mutation-0002", "mutation-0003"]
    assert len(set(names)) == len(names) == 9


# ---------------------------------------------------------------------- what others' code says


def test_an_exception_of_a_proposer_is_reported_in_one_clean_line(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CI", "true")  # pytest shows all of a message there
    result = project.run("--iterations=3", *own(project, f"raise RuntimeError({RAW})"))
    assert result.ret == 1
    printed = result.stdout.str()
    assert SECRET not in printed
    assert "\x1b" not in printed
    [line] = re.findall(r"^ERROR program.md::mutation-0002 - (.*)$", printed, re.MULTILINE)
    said = "RuntimeError: " + " ".join(["key [credential removed] is bad second line"] * 3)
    assert line == said
    assert f"E -------- mutation-0002: {said}" in printed.splitlines()
    assert printed.split("short test summary info")[1].count("second line") == 3
    [attempt] = [attempt for attempt in project.ledger().attempts() if attempt.state == "infra"]
    assert attempt.reason == said


def test_a_provider_error_has_no_traceback(project: Project) -> None:
    result = project.run(
        "--iterations=2", *own(project, "raise ProposerUnavailable('no answer\\nin time')")
    )
    assert result.ret == 1
    result.stdout.fnmatch_lines(["ERROR program.md::mutation-0002 - no answer in time"])
    result.stdout.no_fnmatch_line("*session.py*")


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise ValueError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (ProposerUnavailable("away\x07"), "away"),
        (ProposerUnavailable(), "ProposerUnavailable"),
        (OSError(), "OSError"),
        (KeyError("a\nb"), r"KeyError: 'a\nb'"),
        (Unspeakable(), "Unspeakable"),
        (ValueError("x" * 9999), "ValueError: " + "x" * 487 + "…"),
    ],
)
def test_every_exception_has_a_message(error: Exception, words: str) -> None:
    assert testreports.words(error) == words


def test_a_proposer_without_close_is_refused_before_the_baseline(
    project: Project,
) -> None:
    options = own(project, "pass")
    text = (project.path / "mine.py").read_text()
    (project.path / "mine.py").write_text(text.partition("    def close")[0])
    result = project.run("--iterations=1", *options)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(
        ["ERROR: --autoresearch-proposer=mine:Mine: it lacks close; see docs/proposers.md"]
    )
    assert "Traceback" not in result.stderr.str()
    assert not project.ledger().attempts()


def test_a_failing_close_of_a_proposer_changes_no_verdict(project: Project) -> None:
    result = project.run("--iterations=1", *own(project, "pass", "raise OSError('gone')"))
    assert result.ret == 0
    assert "Traceback" not in result.stderr.str()
    assert result.stdout.str().count("warning: not every resource was released: OSE") == 1
    assert project.verdicts() == ["discard"]


# ---------------------------------------------------------------------- what cannot be written

BROKEN = """
from pytest_autoresearch.ledger.store import LedgerUnavailable
from pytest_autoresearch.report import junit

def write(*args, **options):
    raise LedgerUnavailable("ledger.sqlite: disk I/O error")

junit.write = write
"""


@pytest.mark.parametrize("quiet", [(), ("-q",)])
def test_an_unwritable_log_is_one_warning_and_changes_no_verdict(
    project: Project, quiet
) -> None:
    project.write("conftest.py", (project.path / "conftest.py").read_text() + BROKEN)
    project.commit("broken")
    (project.path / ".autoresearch/main/results.tsv").mkdir(parents=True)
    project.propose(1.5, 1.6)
    result = project.run("--iterations=2", "--junitxml=log.xml", *quiet)
    assert result.ret == 0
    warnings = re.findall(r"^warning: .*", result.stdout.str(), re.MULTILINE)
    said = [
        "warning: results.tsv is not written: Is a directory",
        "warning: log.xml is not written: ledger.sqlite: disk I/O error",
    ]
    assert warnings == 2 * said  # when it began, and at the end, if it is still so
    assert project.verdicts() == ["discard", "discard"]
    assert project.ledger().sessions()[-1].exit == 0


def test_an_unreadable_ledger_stops_logs_but_not_the_session(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    ledger.close()
    ledger.path.write_bytes(b"no database" * 99)
    said: list[str] = []
    warn = lambda what, error: said.append(f"{what}: {error}")  # noqa: E731
    Logs(tmp_path / "results.tsv", ledger, Metric(), tmp_path / "log.xml", 1, warn=warn).write(last=True)
    assert [line.partition(":")[0] for line in said] == [
        "results.tsv is not written", "log.xml is not written",
    ]  # fmt: skip
    with pytest.raises(LedgerUnavailable):
        ledger.attempts()


HISTORY = "commit\tval_bpb\tmemory_gb\tstatus\tdescription\na1b2c3d\t0.99\t44.0\tkeep\tbaseline\n"


@pytest.mark.parametrize("users", ["file", "link", "folder"])
def test_a_table_of_the_user_is_not_overwritten(project: Project, users: str) -> None:
    table = project.path / "results.tsv"
    if users == "folder":
        table.mkdir()
    else:
        file = table if users == "file" else project.path / "ideas/history.tsv"
        file.parent.mkdir(exist_ok=True)
        file.write_text(HISTORY)
        if users == "link":
            table.symlink_to("ideas/history.tsv")
    project.propose(1.5)
    result = project.run("--iterations=1", "-q")
    assert result.ret == 0
    warnings = re.findall(r"^warning: .*", result.stdout.str(), re.MULTILINE)
    assert warnings == [
        "warning: results.tsv does not show this campaign: this plugin did not write it, so it "
        "stays; see .autoresearch/main/results.tsv"
    ]
    assert table.is_dir() or table.read_text() == HISTORY
    assert "score 1.5" in (project.path / ".autoresearch/main/results.tsv").read_text()


def test_campaigns_in_one_folder_have_their_own_table_and_page(project: Project) -> None:
    project.propose(1.25, 1.5)
    for tag in ("one", "two"):
        options = (f"--autoresearch-tag={tag}", "--autoresearch-confirm=0", "--autoresearch-calibrate=2")
        assert project.run("--iterations=1", *options).ret == 0
        assert (project.path / "results.tsv").readlink() == Path(f".autoresearch/{tag}/results.tsv")
        assert (project.path / ".autoresearch/report.html").readlink() == Path(tag, "report.html")
    for tag in ("one", "two"):
        folder = project.path / ".autoresearch" / tag
        assert f"<title>autoresearch: {tag}<" in (folder / "report.html").read_text()
        assert (folder / "results.tsv").read_text().count("\tbaseline") == 1
    subprocess.run(
        [sys.executable, "-m", "pytest_autoresearch", "report", "--tag=two", "--tsv=results.tsv"],
        cwd=project.path, check=True,
    )  # fmt: skip
    assert (project.path / "results.tsv").is_symlink()


# ---------------------------------------------------------------------- signals


def test_signal_handlers_are_restored(monkeypatch: pytest.MonkeyPatch) -> None:
    heard: list[int] = []
    before = signal.signal(signal.SIGTERM, lambda number, frame: heard.append(number))
    try:
        signals = Signals()
        signals.listen()
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # the second one cuts nothing off
        signals.restore()
        signals.restore()
        signal.raise_signal(signal.SIGTERM)
    finally:
        signal.signal(signal.SIGTERM, before)
    assert heard == [signal.SIGTERM]
