"""Live view: a repainted line per worker on a terminal, a plain line now and then elsewhere.

Workers write the state of their runs to files, and the driver shows them. pytest captures the
output while an attempt runs, so the view writes to a descriptor copied before. pytest's own output
goes through `GuardedStream`, which removes the live lines first.
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TextIO

import pytest
from rich.console import Console
from rich.table import Table

from ..core.experiment import Budget, Direction
from ..core.run import Purpose
from ..core.text import one_line
from ..ledger.status import REPAINT_S, read_status
from ..report.terminal import EVERY, SessionView, clock, markup, result_line, standing, write
from .plan import Plan

PLAIN_S = 60.0
"""Seconds between plain lines where the output is not a terminal."""

PHASES = {
    "propose": "proposing", "start": "starting", "train": "training", "score": "scoring",
    "audit": "auditing",
}  # fmt: skip

PURPOSES = {
    Purpose.REPLICATE: " again", Purpose.CHAMPION: " (champion)",
    Purpose.CONFIRM: " (fresh seed)", Purpose.SMOKE: " (smoke)",
}  # fmt: skip


# ---------------------------------------------------------------------- one worker's line


def cells(status: Mapping[str, Any], budget: Budget) -> dict[str, str]:
    """Return the parts of a worker's line by name."""
    smoke = status["purpose"] == Purpose.SMOKE
    elapsed, fraction = float(status["elapsed"]), float(status["fraction"])
    how_far = clock(elapsed)
    if status["phase"] == "train" and not smoke:
        if budget.kind == "wall":
            how_far = f"{clock(elapsed)}/{clock(budget.amount)}"
        else:
            how_far = f"{clock(elapsed)} {fraction:.0%} of {budget}"
    loss, champion = status["loss"], status["champion"]
    return {
        "attempt": status["attempt"] + PURPOSES.get(status["purpose"], ""),
        "phase": PHASES.get(status["phase"], status["phase"]),
        "how far": how_far,
        "loss": "" if loss is None else f"loss {loss:.3f}",
        "champion": "" if champion is None else f"champion {champion:.4f}",
        "title": one_line(status["title"]),
    }


def plain(parts: Mapping[str, str]) -> str:
    """Return a worker's line without markup."""
    return "  … " + " ".join(part for part in parts.values() if part)


def table(rows: Sequence[Mapping[str, str]], width: int) -> Table:
    """Return the workers' lines for `width` columns; parts without room are left out."""
    left_out = {"champion", "title"} if width < 50 else {"champion"} if width < 90 else set()
    styles = {"attempt": "bold", "phase": "cyan", "loss": "magenta", "champion": "green"}
    names = [name for name in rows[0] if name not in left_out and any(row[name] for row in rows)]
    grid = Table.grid(padding=(0, 1), expand=True)
    for name in names:
        last = name == names[-1]
        grid.add_column(style=styles.get(name, ""), no_wrap=True, overflow="ellipsis",
                        ratio=1 if last else None)  # fmt: skip
    for row in rows:
        grid.add_row(*(row[name] for name in names))
    return grid


# ---------------------------------------------------------------------- the view


class GuardedStream:
    """pytest's stream, from which the live lines are removed before every write."""

    def __init__(self, stream: TextIO, view: LiveView) -> None:
        self._stream, self._view = stream, view

    def write(self, text: str) -> int:
        """Remove the live lines, then write and flush the text."""
        with self._view.lock:
            self._view.erase()
            with contextlib.suppress(OSError):  # a closed terminal must not end the campaign
                self._stream.write(text)
                self._stream.flush()
            self._view.pending = (self._view.pending + text).rpartition("\n")[2]
        return len(text)

    def flush(self) -> None:
        """Flush the stream, unless the terminal is closed."""
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


class LiveView:
    """Lines that show what runs.

    Args:
        config: The pytest configuration.
        plan: Plan of the session.
        direction: Direction of the metric.
        view: Returns the present state of the session.

    Attributes:
        lock: Held during every write.
        pending: Text of pytest's last line while it has no line break yet.
    """

    def __init__(
        self,
        config: pytest.Config,
        plan: Plan,
        direction: Direction,
        view: Callable[[], SessionView],
    ) -> None:
        self.reporter: Any = config.pluginmanager.getplugin("terminalreporter")
        self._config, self._direction, self._view = config, direction, view
        self._folder = config.rootpath / ".autoresearch" / plan.tag
        self.lock = threading.RLock()
        self.pending = ""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        self._out: TextIO | None = None
        self._painted = 0
        self._finished = 0
        self._budget = plan.facts.budget
        self._began = time.monotonic()

    @property
    def speaks(self) -> bool:
        """Return whether attempts have result lines: not with ``-q``."""
        return self.reporter is not None and self._config.option.verbose >= 0

    @property
    def _repaints(self) -> bool:
        return (
            bool(self.reporter.isatty)
            and os.environ.get("TERM") != "dumb"
            and self._config.option.color != "no"
        )

    def start(self) -> None:
        """Start to show what runs."""
        if not self.speaks:
            return
        self.reporter.showfspath = False
        self.reporter._show_progress_info = False  # our lines leave no room for a percentage
        writer = self.reporter._tw
        try:
            copy = os.dup(writer._file.fileno())
        except (OSError, ValueError):
            return  # not backed by a file: result lines only
        self._out = os.fdopen(copy, "w", encoding=writer._file.encoding, errors="replace")
        writer._file = GuardedStream(writer._file, self)
        self._thread = threading.Thread(target=self._loop, name="autoresearch-live", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Remove the lines and restore pytest's stream."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        with self.lock:
            self.erase()
            if self._out is not None:
                self.reporter._tw._file = self.reporter._tw._file._stream
                with contextlib.suppress(OSError):
                    self._out.close()
                self._out = None

    def _loop(self) -> None:
        repaints = self._repaints
        while not self._stop.wait(REPAINT_S if repaints else PLAIN_S):
            rows = [cells(status, self._budget) for status in read_status(self._folder)]
            with self.lock, contextlib.suppress(OSError, ValueError):
                if self._stop.is_set():
                    return
                if repaints:
                    self._paint(rows)
                elif rows:
                    self._write("\n" * bool(self.pending) + "".join(plain(r) + "\n" for r in rows))
                    self.pending = ""

    def _paint(self, rows: Sequence[Mapping[str, str]]) -> None:
        self.erase()
        if not rows:
            return
        width, height = self._size()
        console = Console(
            file=self._out, width=width, force_terminal=True, highlight=False, markup=False,
            emoji=False, color_system="auto" if self.reporter.hasmarkup else None,
        )  # fmt: skip
        with console.capture() as captured:
            console.print(table(rows[: max(1, height - 2)], width - 1))
        lines = captured.get().rstrip("\n").split("\n")
        if self.pending:
            lines.insert(0, "")
        self._write("\n".join(lines))
        self._painted = len(lines)

    def _size(self) -> tuple[int, int]:
        assert self._out is not None
        try:
            columns, rows = os.get_terminal_size(self._out.fileno())
        except OSError:
            columns, rows = 80, 24
        asked = os.environ.get("COLUMNS", "")
        return (int(asked) if asked.isdecimal() and int(asked) else columns) or 80, rows or 24

    def _write(self, text: str) -> None:
        assert self._out is not None
        self._out.write(text)
        self._out.flush()

    def erase(self) -> None:
        """Remove the live lines and return the cursor to where pytest left it."""
        if self._painted:
            with contextlib.suppress(OSError):  # the terminal is closed
                self._write("\r\x1b[2K" + "\x1b[1A\x1b[2K" * (self._painted - 1) + self.pending)
            self._painted = 0

    # ------------------------------------------------------------------ permanent lines

    def say(self, line: str, **colours: bool) -> None:
        """Print a line, except with ``-q``."""
        if self.speaks:
            self.tell(line, **colours)

    def tell(self, line: str, **colours: bool) -> None:
        """Print a line, also with ``-q``."""
        if self.reporter is not None:
            with self.lock:
                self.reporter.ensure_newline()
                write(self.reporter, line, **colours)

    def failed(self, report: pytest.TestReport) -> None:
        """Print the infrastructure failure of an attempt."""
        crash = getattr(report.longrepr, "reprcrash", None)
        why = (crash.message if crash else str(report.longrepr)).split("\n")[0]
        self.say(f"E {'-' * 8} {report.nodeid.split('::')[-1]}: {why}", red=True)

    def finished(self, report: pytest.TestReport) -> None:
        """Print an attempt's result line and, after every tenth, the campaign's standing."""
        if not self.speaks:
            return
        facts = {name: str(value) for name, value in report.user_properties}
        verdict = facts.get("verdict", "")
        name = report.nodeid.split("::")[-1]
        self.say(result_line(name, facts, self._direction), **markup(verdict))
        if verdict != "baseline":
            self._finished += 1
            if self._finished % EVERY == 0:
                seconds = time.monotonic() - self._began
                self.say(standing(self._view(), self._finished, seconds))
