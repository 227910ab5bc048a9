"""Report what happens while a campaign runs: terminal, log files, report page, plugin hooks."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ..core.errors import UsageError
from ..core.experiment import Metric
from ..core.files import STATE, link_ours
from ..core.text import one_line
from ..hookspecs import announce, artifacts_of
from ..ledger.status import read_status
from ..ledger.store import Ledger
from ..options import PAGE, Options
from ..report import exports, html, junit, markdown
from ..report.terminal import SessionView, header, summary, write
from . import preflight, testreports
from .live import LiveView
from .plan import Plan


class Reporter:
    """Reports progress and results of the driver.

    Args:
        config: The pytest configuration.
        options: Options of the session.
        plan: Plan of the session.
        metric: Metric of the experiment.
        view: Returns the present state of the session.
        ledger: Returns the campaign's ledger.
        session_id: Returns the session's row in the ledger, or None before it has joined.
    """

    def __init__(
        self,
        config: pytest.Config,
        options: Options,
        plan: Plan,
        metric: Metric,
        view: Callable[[], SessionView],
        ledger: Callable[[], Ledger],
        session_id: Callable[[], int | None],
    ) -> None:
        self.config, self.options, self.plan, self.metric = config, options, plan, metric
        self._view, self._open_ledger, self._session_id = view, ledger, session_id
        self._root = config.rootpath
        self._junit = preflight.junit_log(config)
        self._folder = self._root / STATE / plan.tag
        self._table = self._folder / "results.tsv"
        self._html = self._root / options.html if options.html else None
        if options.html == PAGE:
            self._html = self._folder / "report.html"
        self._live: LiveView | None = None
        self._page: LivePage | None = None
        self._logs: Logs | None = None
        self._waiting: list[str] = []
        self._warned: set[str] = set()

    @property
    def _ledger(self) -> Ledger:
        return self._open_ledger()

    def start(self) -> None:
        """Start the live view and the thread that writes the report page."""
        self._live = LiveView(self.config, self.plan, self.metric.direction, self._view)
        self._live.start()
        self._link("results.tsv", self._table)
        if self.options.html == PAGE:
            self._link(PAGE, self._folder / "report.html")
        if self._html is not None:
            self._page = LivePage(self._html, self._ledger)
            self._page.start()

    def _link(self, name: str, file: Path) -> None:
        """Show this campaign's file under a name that campaigns share; never replace a user's."""
        with self.optional(f"{name} does not show this campaign"):
            if not link_ours(self._root / name, file):
                shown = file.relative_to(self._root)
                raise UsageError(f"this plugin did not write it, so it stays; see {shown}")

    def stop(self) -> None:
        """Remove the live lines."""
        if self._live is not None:
            self._live.stop()

    @property
    def speaks(self) -> bool:
        """Return whether attempts have result lines; with ``-q`` they have letters."""
        return self._live is not None and self._live.speaks

    # ------------------------------------------------------------------ messages

    def say(self, line: str) -> None:
        """Print a line; before the session has started, it becomes part of the header."""
        if self._live is not None:
            self._live.say(line)
        else:
            self._waiting.append(line)

    def warn(self, what: str, error: Exception) -> None:
        """Print one warning, also with ``-q``; repeated warnings are printed once."""
        reason = getattr(error, "strerror", None) or testreports.words(error)
        line = one_line(f"warning: {what}: {reason}")
        if line in self._warned:
            return
        self._warned.add(line)
        if self._live is not None:
            self._live.tell(line, yellow=True)

    @contextlib.contextmanager
    def optional(self, what: str) -> Iterator[None]:
        """Run an optional step; if it fails, print one warning and continue."""
        try:
            yield
        except Exception as error:
            self.warn(what, error)

    def header(self) -> list[str]:
        """Return the lines of pytest's header."""
        return [*header(self._view()), *self._waiting]

    def summarise(self, reporter: Any) -> None:
        """Print the summary, except with ``-qq``."""
        if self.config.option.verbose < -1:
            return
        reporter.section("autoresearch")
        with self.optional("no summary"):
            for line in summary(self._view()):
                write(reporter, line)

    # ------------------------------------------------------------------ attempts

    def finished(self, report: pytest.TestReport) -> None:
        """Print the line of an attempt with its verdict, write the logs, call plugins."""
        with self.optional("an attempt is not fully reported"):
            self._mention_steering(dict(report.user_properties))
            if self._live is not None:
                self._live.finished(report)
        self.write_logs()
        with self.optional("plugins were not called for an attempt"):
            self._announce(report)

    def failed(self, report: pytest.TestReport) -> None:
        """Print the infrastructure failure of an attempt."""
        if self._live is not None:
            self._live.failed(report)

    def _announce(self, report: pytest.TestReport) -> None:
        """Call plugins with an attempt; their exceptions are printed and change nothing."""
        row = dict(report.user_properties).get("ledger_row")
        if row is None:
            return
        ledger = self._ledger
        record = ledger.attempt(int(str(row)))
        files = artifacts_of(
            record,
            ledger.path,
            tsv=self._table,
            junit=self._junit,
            html=self._html,
        )
        say = self._live.tell if self._live is not None else None
        announce(self.config.pluginmanager, record, files, say)

    def _mention_steering(self, facts: dict[str, Any]) -> None:
        """Print which attempt is the first to be proposed from a changed program."""
        row, brief = int(facts.get("ledger_row", 0)), facts.get("brief")
        if not brief:
            return
        attempts = self._ledger.attempts()
        earlier = [one for one in attempts if one.id < row and one.meta.get("brief")]
        if earlier and earlier[-1].meta["brief"] != brief:
            name = self._ledger.attempt(row).name
            self.say(f"{self.plan.program} changed; {name} is the first to use it ({brief})")

    # ------------------------------------------------------------------ files

    def write_logs(self, last: bool = False) -> None:
        """Write the log files from the ledger.

        Args:
            last: Write everything, and repeat warnings that still apply.
        """
        if last:
            self._warned.clear()
        if self._logs is None:
            self._logs = Logs(
                self._table,
                self._ledger,
                self.metric,
                self._junit,
                self._session_id() or 0,
                self._page,
                self.warn,
            )
        self._logs.write(last)
        if last and self.options.summary:
            with self.optional(f"{self.options.summary} is not written"):
                self._append_summary(self._root / self.options.summary)

    def _append_summary(self, path: Path) -> None:
        ledger = self._ledger
        text = markdown.render(
            self.plan.tag,
            ledger.attempts(),
            ledger.champions(),
            self.metric,
            ledger.confirmation(),
        )
        with path.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


PAGE_SHARE = 0.02
"""Share of the time that may go into writing the page."""


def pause(cost_s: float) -> float:
    """Return the seconds to wait after writing a page that took `cost_s`."""
    return max(1.0, cost_s / PAGE_SHARE)


class LivePage:
    """A thread that writes the report page after each attempt and, at intervals, for running ones.

    A page that cannot be written is written with the next attempt.
    """

    def __init__(self, path: Path, ledger: Ledger) -> None:
        self.path = path
        self._ledger = ledger
        self._stop, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="autoresearch-page", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def changed(self) -> None:
        """Request a new page; return at once."""
        self._changed.set()

    def finish(self) -> None:
        """Stop the thread and write the final page.

        Raises:
            Exception: The page cannot be written; the ledger is complete.
        """
        self._stop.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()
        self._write(live=False)

    def _loop(self) -> None:
        while True:
            started = time.monotonic()
            with contextlib.suppress(Exception):  # the next try follows in seconds
                self._write(live=True)
            rest = pause(time.monotonic() - started)
            if self._stop.wait(rest):
                return
            self._changed.wait(max(0.0, html.RELOAD_S - rest))
            self._changed.clear()
            if self._stop.is_set():
                return

    def _write(self, live: bool) -> None:
        facts = html.gather(self._ledger, read_status(self._ledger.path.parent))
        attempts, champions = self._ledger.attempts(), self._ledger.champions()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        html.write(self.path, attempts, champions, facts, live=live)


QUICK_S = 0.1
"""Seconds up to which logs are written after every attempt; slower writes keep to `SHARE`."""

SHARE = 0.03
"""Share of the time that may go into writing logs; with `PAGE_SHARE`, at most 5 %."""


@dataclass
class Logs:
    """Writer of results.tsv and the junit log.

    A file that cannot be written stays as it is, with a warning: the ledger is complete, and a
    full disk must not end a session.

    Attributes:
        table: Path of results.tsv.
        ledger: Ledger of the campaign.
        metric: Metric of the experiment.
        junit: Path of the junit log, or None.
        first_session: Row of this session; attempts of earlier ones are marked.
        page: Thread that writes the report page, or None.
        warn: Prints what was not written, and why.
    """

    table: Path
    ledger: Ledger
    metric: Metric
    junit: Path | None
    first_session: int
    page: LivePage | None = None
    warn: Callable[[str, Exception], object] = lambda what, error: None
    _next: float = 0.0

    def write(self, last: bool = False) -> None:
        """Write every file, unless the last write was slow and recent.

        Args:
            last: Write everything now, and finish the page.
        """
        if last or time.monotonic() >= self._next:
            began = time.thread_time()  # on a busy machine, the wall time is others' work
            self._write()
            took = time.thread_time() - began
            self._next = time.monotonic() + (took / SHARE if took > QUICK_S else 0.0)
        if self.page is not None:
            if last:
                with self._optional("the report page"):
                    self.page.finish()
            else:
                self.page.changed()

    @contextlib.contextmanager
    def _optional(self, file: str) -> Iterator[None]:
        """Continue after a full disk, a locked ledger or a fault of the writer."""
        try:
            yield
        except Exception as error:
            self.warn(f"{file} is not written", error)

    def _write(self) -> None:
        with self._optional("results.tsv"):
            exports.write(self.table, self.ledger.attempts())
        if self.junit is not None:
            with self._optional(self.junit.name):
                attempts, champions = self.ledger.attempts(), self.ledger.champions()
                junit.write(
                    self.junit,
                    attempts,
                    self.metric,
                    junit.facts_of(self.ledger, attempts, champions),
                    champions=champions,
                    first_session=self.first_session,
                )
