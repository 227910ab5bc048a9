"""The terminal report on a pty, in a pipe and without colours."""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import json
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project

from pytest_autoresearch import Budget
from pytest_autoresearch.core.run import Progress
from pytest_autoresearch.ledger import status
from pytest_autoresearch.report import terminal
from pytest_autoresearch.session import live

COST = r"( \d+ MiB)? \d+:\d\d"
"""Peak memory, if measured, and time of an attempt."""

SLOW = """\
Title: {title}

train.py
<<<<<<< SEARCH
# ideas go here
=======
SCORE = {score}
time.sleep({seconds})
# ideas go here
>>>>>>> REPLACE
"""
ESCAPE = re.compile(r"\x1b\[([0-9;]*)([A-Za-z])")


class Screen:
    """A terminal that emulates the sequences of the live view and fails on any other.

    Attributes:
        rows: Shown at the end.
        seen: Every row that was painted over.
    """

    def __init__(self, text: str) -> None:
        self.rows, self.seen, self.at = [""], [], [0, 0]
        while text:
            if found := ESCAPE.match(text):
                self._obey(found[1], found[2])
                text = text[found.end() :]
            else:
                self._put(text[0])
                text = text[1:]

    def _obey(self, number: str, command: str) -> None:
        if command == "A":
            self.at[0] -= int(number)
        elif command == "K":
            assert number == "2"
            self.seen.append(self.rows[self.at[0]])
            self.rows[self.at[0]] = ""
        else:
            assert command == "m", command

    def _put(self, character: str) -> None:
        assert character == "\r" or character == "\n" or character.isprintable(), repr(character)
        if character == "\r":
            self.at[1] = 0
        elif character == "\n":
            self.at[0] += 1
            if self.at[0] == len(self.rows):
                self.rows.append("")
        else:
            row, column = self.at
            line = self.rows[row].ljust(column)
            self.rows[row] = line[:column] + character + line[column + 1 :]
            self.at[1] += 1

    def results(self) -> list[str]:
        """Return the rows from the first attempt to the end of the summary."""
        first = next(i for i, row in enumerate(self.rows) if row.startswith("B "))
        last = max(i for i, row in enumerate(self.rows) if " in " in row and "calibrated" in row)
        return [row.rstrip() for row in self.rows[first:last]]


def command(*args: str) -> list[str]:
    return [
        sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-proposer=replay:ideas",
        "--autoresearch-confirm=0", "--autoresearch-html=off", "--autoresearch-calibrate=2", "-p", "no:cacheprovider",
        "-p", "no:hypothesispytest", *args,
    ]  # fmt: skip


def environment(**changes: str) -> dict[str, str]:
    left_out = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "PY_COLORS", "PYTEST_ADDOPTS", "CI"}
    kept = {name: value for name, value in os.environ.items() if name not in left_out}
    return {**kept, "TERM": "xterm-256color", "PYTHONIOENCODING": "utf-8", **changes}


def on_a_terminal(project: Project, *args: str, columns: int = 100, **env: str) -> str:
    """Run a campaign on a pseudo-terminal; return its output."""
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    process = subprocess.Popen(
        command(*args), cwd=project.path, env=environment(**env),
        stdin=theirs, stdout=theirs, stderr=theirs,
    )  # fmt: skip
    os.close(theirs)
    watchdog = threading.Timer(120, process.kill)
    watchdog.start()
    sent = b""
    with contextlib.suppress(OSError):  # EIO: the other side is closed
        while chunk := os.read(ours, 65536):
            sent += chunk
    assert process.wait() == 0, sent.decode()
    watchdog.cancel()
    os.close(ours)
    return sent.decode()


@pytest.fixture
def slow(project: Project) -> Project:
    """A project with an idea that runs long enough for the live view."""
    project.propose(SLOW.format(title="halve it", score=0.5, seconds=1.5), 1.5)
    return project


def test_live_line_disappears_after_the_run(slow: Project) -> None:
    screen = Screen(on_a_terminal(slow, "--iterations=2"))
    lines = [row.rstrip() for row in screen.seen if "training" in row]
    assert any(
        re.fullmatch(r"mutation-0001 training 0:\d\d/5:00 champion 1\.0002 halve it", row)
        for row in lines
    ), lines
    shown = screen.results()
    assert not [row for row in shown if "training" in row or "proposing" in row]
    kept, discarded = (row for row in shown if row[:2] in ("K ", "D "))
    assert re.fullmatch(
        rf"K 0\.500200  -0\.50\d{{4}} \(\d+\.\d sigma better\) mutation-0001 halve it \+2/-0{COST}", kept
    )
    assert re.fullmatch(
        rf"D 1\.500200  \+1\.00\d{{4}} \(\d+\.\d sigma worse\) mutation-0002 score 1\.5 \+1/-0{COST}",
        discarded,
    )
    assert [
        row for row in shown if row.startswith("campaign main: 2 attempts (1 kept, 1 discarded)")
    ]


@pytest.mark.slow
def test_each_worker_has_a_line(project: Project) -> None:
    project.propose(*(SLOW.format(title=f"idea {n}", score=2 + n, seconds=3) for n in range(2)))
    screen = Screen(on_a_terminal(project, "--iterations=2", "-n2"))
    rows = [row.split()[0] for row in screen.seen if "training" in row]
    both = {("mutation-0001", "mutation-0002"), ("mutation-0002", "mutation-0001")}
    assert both & set(itertools.pairwise(rows))
    assert not [row for row in screen.results() if "training" in row]


def test_no_color_keeps_the_live_line_without_colours(slow: Project) -> None:
    sent = on_a_terminal(slow, "--iterations=1", NO_COLOR="1")
    assert {command for _, command in ESCAPE.findall(sent)} <= {"A", "K"}
    assert any("training" in row for row in Screen(sent).seen)


@pytest.mark.parametrize(
    ("columns", "env"),
    [(100, {"COLUMNS": "40"}), pytest.param(40, {}, marks=pytest.mark.slow)],
)
def test_lines_fit_a_narrow_terminal(slow: Project, columns: int, env) -> None:
    screen = Screen(on_a_terminal(slow, "--iterations=2", columns=columns, **env))
    painted = [row for row in screen.seen if "training" in row]
    assert painted
    assert max(map(len, [*painted, *screen.results()])) <= 40
    words = " ".join(" ".join(screen.results()).split())
    kept = rf"K 0\.500200 +-0\.5\d+ \(\d+\.\d sigma better\) mutation-0001 halve it \+2/-0{COST} D 1\.5"
    assert re.search(kept, words)


def test_quiet_prints_letters_and_the_summary(slow: Project) -> None:
    screen = Screen(on_a_terminal(slow, "--iterations=2", "-q"))
    assert not [row for row in screen.seen if "training" in row]
    assert [row for row in screen.rows if re.match("B+KD", row)]
    assert [row for row in screen.rows if row.startswith("champion  val_bpb 0.500")]


def test_verbose_announces_an_attempt_above_the_live_line(slow: Project) -> None:
    screen = Screen(on_a_terminal(slow, "--iterations=1", "-v"))
    assert any("training" in row for row in screen.seen)
    rows = [row.rstrip() for row in screen.rows]
    at = rows.index("program.md::mutation-0001")
    assert rows[at + 1].startswith("K 0.5")


@pytest.mark.slow
def test_very_quiet_prints_no_summary(slow: Project) -> None:
    assert "champion" not in on_a_terminal(slow, "--iterations=1", "-qq")


@pytest.mark.parametrize(
    "env",
    [{"TERM": "dumb"}, pytest.param({"PYTEST_ADDOPTS": "--color=no"}, marks=pytest.mark.slow)],
)
def test_dumb_terminal_gets_no_escape_sequences(slow: Project, env) -> None:
    sent = on_a_terminal(slow, "--iterations=1", **env)
    assert "\x1b" not in sent
    assert "K 0.5" in sent


def piped(project: Project, *args: str, **env: str) -> str:
    done = subprocess.run(
        command(*args), cwd=project.path, capture_output=True, timeout=120, env=environment(**env)
    )
    return done.stdout.decode()


def test_pipe_gets_whole_lines_without_colours(project: Project) -> None:
    title = "a title of many words " * 4
    project.propose(SLOW.format(title=title.strip(), score=0.5, seconds=0))
    printed = piped(project, "--iterations=1", COLUMNS="40")
    assert "\x1b" not in printed
    assert re.search(rf"mutation-0001 {title.strip()} \+2/-0{COST}\n", printed)


def test_control_characters_of_candidates_are_not_printed(project: Project) -> None:
    evil = "\x1b]0;owned\x07 \x1b[2J \u202ereversed \x9b31m"
    project.propose(
        SLOW.format(title=evil, score=0.5, seconds=0),
        SLOW.format(title="x", score=f'print("\\x1b[2J{evil}") or 1/0', seconds=0),
    )
    printed = piped(project, "--iterations=2")
    assert "K 0.5" in printed
    assert not {"\x1b", "\x07", "\x9b", "\u202e"} & set(printed)


def test_standing_is_printed_after_every_tenth_attempt(project: Project) -> None:
    project.propose(0.5, *(1.5 + n / 100 for n in range(10)))
    printed = piped(project, "--iterations=11")
    [line] = [line for line in printed.splitlines() if line.startswith("---")]
    assert re.fullmatch(
        r"--- 1 kept, 9 discarded; champion 0\.500\d{3} by mutation-0001, gain \+0\.500000; "
        r"10 attempts in 0:\d\d; about 0:0\d for 1 more", line,
    )  # fmt: skip


FULL_DISK = """
def pytest_runtest_setup(item):
    if item.name == "mutation-0001":
        raise OSError("no space left")
"""


def test_infrastructure_error_is_printed_on_a_line(project: Project) -> None:
    project.write("conftest.py", (project.path / "conftest.py").read_text() + FULL_DISK)
    project.commit("full disk")
    project.propose(0.5)
    printed = piped(project, "--iterations=1")
    assert "\nE -------- mutation-0001: OSError: no space left\n" in printed
    assert "\nERROR program.md::mutation-0001 - OSError: no space left" in printed


# ---------------------------------------------------------------------- status of workers

STATUS = {
    "worker": "gw0", "attempt": "mutation-0007", "title": "t", "purpose": "first", "phase": "train",
    "fraction": 0.45, "elapsed": 13.0, "loss": 3.5, "champion": 0.9,
}  # fmt: skip


@pytest.mark.parametrize(
    ("budget", "changes", "line"),
    [
        ("30s", {}, "mutation-0007 training 0:13/0:30 loss 3.500 champion 0.9000 t"),
        ("equal:600ktok", {}, "mutation-0007 training 0:13 45% of equal:600ktok loss 3.500 champion 0.9000 t"),
        ("30s", {"phase": "score", "loss": None}, "mutation-0007 scoring 0:13 champion 0.9000 t"),
        ("30s", {"purpose": "smoke"}, "mutation-0007 (smoke) training 0:13 loss 3.500 champion 0.9000 t"),
        ("30s", {"purpose": "replicate", "elapsed": 3723}, "mutation-0007 again training 1:02:03/0:30 loss 3.500 champion 0.9000 t"),
    ],
)  # fmt: skip
def test_live_line_shows_the_progress(budget: str, changes, line: str) -> None:
    cells = live.cells({**STATUS, **changes}, Budget.parse(budget))
    assert live.plain(cells) == f"  … {line}"


def test_only_living_workers_are_shown_and_their_clocks_run(tmp_path: Path) -> None:
    status.write_status(tmp_path, "gw0", "mutation-0007", "first", Progress("train", 0.5, 13.0))
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    alive = json.loads((tmp_path / "status/gw0.json").read_text())
    (tmp_path / "status/gw0.json").write_text(json.dumps({**alive, "at": time.time() - 100}))
    (tmp_path / "status/gw1.json").write_text(json.dumps({**alive, "pid": gone.pid}))
    (tmp_path / "status/gw2.json").write_text("torn {")
    [shown] = status.read_status(tmp_path)
    assert shown["worker"] == "gw0"
    assert shown["elapsed"] >= 113
    status.clear_status(tmp_path, "gw0")
    assert status.read_status(tmp_path) == []


class Reporter:
    def __init__(self, width: int | None) -> None:
        self.isatty = width is not None
        self._tw = SimpleNamespace(fullwidth=width)
        self.lines: list[str] = []

    def write_line(self, line: str) -> None:
        self.lines.append(line)


@given(st.text(), st.integers(20, 200))
def test_wrapped_line_fits_and_keeps_its_words(text: str, width: int) -> None:
    narrow, pipe = Reporter(width), Reporter(None)
    terminal.write(narrow, text)
    terminal.write(pipe, text)
    assert max(map(len, narrow.lines)) < max(width, 21)
    assert "".join("".join(narrow.lines).split()) == "".join(terminal.harmless(text).split())
    assert pipe.lines == [terminal.harmless(text)]
    assert all(line.isprintable() for line in narrow.lines)


@given(st.sampled_from(["min", "max"]), st.floats(-9, 9), st.floats(-99, 99))
def test_change_has_the_sign_of_the_score(direction, gain: float, sigma: float) -> None:
    facts = {"verdict": "keep", "score": "0.5", "gain": repr(gain), "title": "t",
             "gain_sigma": repr(sigma)}  # fmt: skip
    line = terminal.result_line("mutation-0007", facts, direction)
    found = re.fullmatch(
        r"K 0\.500000  ([+-][0-9.]+) \(([0-9.]+) sigma (better|worse)\) mutation-0007 t \+0/-0",
        line,
    )
    assert found
    assert float(found[1]) == pytest.approx(-gain if direction == "min" else gain, abs=1e-6)
    assert float(found[2]) == pytest.approx(abs(sigma), abs=0.051)
    assert (found[3] == "better") == (sigma > 0)
    assert "-0.000000" not in line
