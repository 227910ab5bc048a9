"""What the driver shows and writes while a campaign runs: for people, for machines, for plugins."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..core.text import one_line
from ..ledger.status import read_status
from ..ledger.store import Ledger
from ..report import html
from ..report.terminal import header, summary, write
from . import preflight, testreports
from .live import LiveView

if TYPE_CHECKING:
    from ..core.experiment import Metric
    from .session import Session


class Reporter:
    """The driver's one way to tell anybody anything.

    Attributes:
        session: That it tells of.
    """

    def __init__(self, session: Session) -> None:
        self.session = session
        self._live: LiveView | None = None
        self._page: LivePage | None = None
        self._logs: Logs | None = None
        self._waiting: list[str] = []
        self._warned: set[str] = set()

    def start(self) -> None:
        """Begin to show what runs, on the terminal and on the page."""
        session = self.session
        self._live = LiveView(session)
        self._live.start()
        if session.options.html:
            pass  # MOVED

            root = session.config.rootpath
            self._page = LivePage(root / session.options.html, root, session.plan.tag)
            self._page.start()

    def stop(self) -> None:
        """Take the live lines away."""
        if self._live is not None:
            self._live.stop()

    @property
    def speaks(self) -> bool:
        """Whether attempts have lines of their own."""
        return self._live is not None and self._live.speaks

    # ------------------------------------------------------------------ words

    def say(self, line: str) -> None:
        """Show a line; before there is anything to show it on, it waits for the header."""
        if self._live is not None:
            self._live.say(line)
        else:
            self._waiting.append(line)

    def warn(self, what: str, error: Exception) -> None:
        """Show, with ``-q``, too, and once, what was not done: it ends no night."""
        said = getattr(error, "strerror", None) or testreports.words(error)
        line = one_line(f"warning: {what}: {said}")
        if line in self._warned:
            return
        self._warned.add(line)
        if self._live is not None:
            self._live.tell(line, yellow=True)

    @contextlib.contextmanager
    def _attempt(self, what: str) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            self.warn(what, error)

    def header(self) -> list[str]:
        """What is in force, for pytest's header."""
        return [*header(self.session.view()), *self._waiting]

    def summarise(self, reporter: Any) -> None:
        """The block at the end; not with ``-qq``."""
        if self.session.config.option.verbose < -1:
            return
        reporter.section("autoresearch")
        with self._attempt("no summary"):
            for line in summary(self.session.view()):
                write(reporter, line)

    # ------------------------------------------------------------------ an attempt

    def finished(self, report: pytest.TestReport) -> None:
        """An attempt has its verdict: print its line, write the logs, tell plugins."""
        with self._attempt("not everything was said of an attempt"):
            self._mention_steering(dict(report.user_properties))
            if self._live is not None:
                self._live.finished(report)
        self.write_logs()
        with self._attempt("plugins did not hear of an attempt"):
            self._announce(report)

    def failed(self, report: pytest.TestReport) -> None:
        """Infrastructure took an attempt: print what broke."""
        if self._live is not None:
            self._live.failed(report)

    def _announce(self, report: pytest.TestReport) -> None:
        """Tell plugins of a verdict; what they raise is said and changes nothing."""
        from ..hookspecs import announce, artifacts_of

        row = dict(report.user_properties).get("ledger_row")
        if row is None:
            return
        session = self.session
        record = session.ledger.attempt(int(str(row)))
        root, page = session.config.rootpath, session.options.html
        files = artifacts_of(
            record,
            session.ledger.path,
            tsv=root / "results.tsv",
            junit=preflight.junit_log(session.config),
            html=root / page if page else None,
        )
        say = self._live.tell if self._live is not None else None
        announce(session.config.pluginmanager, record, files, say)

    def _mention_steering(self, facts: dict[str, Any]) -> None:
        """Say with which attempt a changed program was seen first."""
        ledger, program = self.session.ledger, self.session.plan.program
        row, brief = int(facts.get("ledger_row", 0)), facts.get("brief")
        earlier = [s for s in ledger.attempts() if s.id < row and s.meta.get("brief")]
        if brief and earlier and earlier[-1].meta["brief"] != brief:
            name = ledger.attempt(row).name
            self.say(f"{program} changed; {name} is the first to see it ({brief})")

    # ------------------------------------------------------------------ files

    def write_logs(self, last: bool = False) -> None:
        """Project the ledger into the files that people and machines read.

        Args:
            last: Nothing comes after it; what failed before is said again if it still does.
        """
        session = self.session
        if last:
            self._warned.clear()
        if self._logs is None:
            self._logs = Logs(
                session.config.rootpath,
                session.ledger,
                session.experiment.metric,
                preflight.junit_log(session.config),
                session.session_id or 0,
                self._page,
                self.warn,
            )
        self._logs.write(last)
        if last:
            with self._attempt(f"{session.options.summary} is not written"):
                self._summarise_for_ci()

    def _summarise_for_ci(self) -> None:
        """Append the Markdown summary where it was asked for."""
        session = self.session
        if not session.options.summary:
            return
        from ..report import markdown

        text = markdown.render(
            session.plan.tag,
            session.ledger.attempts(),
            session.ledger.champions(),
            session.experiment.metric,
            session.ledger.meta("confirmation"),
        )
        markdown.append(session.config.rootpath / session.options.summary, text)


SHARE = 0.02
"""Most of the time that may go into writing the page; a long campaign's is written less often."""


def pause(cost_s: float) -> float:
    """Return how many seconds to rest after a page that took `cost_s`."""
    return max(1.0, cost_s / SHARE)


class LivePage:
    """A thread that writes the page when something ended, and now and then for what still runs.

    It reads the ledger over a connection of its own, so that a long read holds up no trial. What
    cannot be written is left until the next attempt: the ledger has everything.
    """

    def __init__(self, path: Path, root: Path, tag: str) -> None:
        self.path = path
        self._ledger = Ledger.open(root, tag)
        self._stop, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="autoresearch-page", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def changed(self) -> None:
        """Say that an attempt ended; returns at once, the page follows soon."""
        self._changed.set()

    def finish(self) -> None:
        """Stop, and write the page of a campaign that runs no more.

        Raises:
            Exception: It cannot be written; the ledger still holds everything.
        """
        self._stop.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._write(live=False)
        finally:
            self._ledger.close()

    def _loop(self) -> None:
        while True:
            started = time.monotonic()
            with contextlib.suppress(Exception):  # the next attempt is seconds away
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


QUICK_S = 0.5
"""Seconds that writing may take at any time; what takes longer keeps to `SHARE`."""

SHARE = 0.05
"""Share of the time that writing may take, so that a long campaign's attempts are not held up."""


@dataclass
class Logs:
    """The files that one session keeps up to date.

    A file that cannot be written is left as it is, with a warning: the ledger holds everything,
    and a full disk must not end a night.

    Attributes:
        root: The project.
        ledger: Of the campaign.
        metric: Of the experiment.
        junit: Where the junit log goes, if anywhere.
        first_session: This run's session; attempts of earlier ones are marked.
        page: The HTML page, which is written by a thread of its own.
        warn: Told what was not written, and why.
    """

    root: Path
    ledger: Ledger
    metric: Metric
    junit: Path | None
    first_session: int
    page: LivePage | None = None
    warn: Callable[[str, Exception], object] = lambda what, error: None
    _next: float = 0.0

    def write(self, last: bool = False) -> None:
        """Bring every file up to date.

        Args:
            last: Nothing comes after it, so nothing is left for later.
        """
        began = time.monotonic()
        if last or began >= self._next:
            self._write()
            took = time.monotonic() - began
            self._next = time.monotonic() + (took / SHARE if took > QUICK_S else 0.0)
        if self.page is not None:
            if last:
                with self._attempt("the report page"):
                    self.page.finish()
            else:
                self.page.changed()

    @contextlib.contextmanager
    def _attempt(self, file: str) -> Iterator[None]:
        """Let neither a full disk, nor a locked ledger, nor a fault of ours end a night."""
        try:
            yield
        except Exception as error:
            self.warn(f"{file} is not written", error)

    def _write(self) -> None:
        from ..ledger import snapshot
        from ..report import junit, tsv

        with self._attempt("results.tsv"):
            tsv.write(self.root / "results.tsv", self.ledger.attempts())
        if self.junit is not None:
            with self._attempt(self.junit.name):
                attempts, champions = self.ledger.attempts(), self.ledger.champions()
                junit.write(
                    self.junit,
                    attempts,
                    self.metric,
                    junit.facts_of(self.ledger, attempts, champions, self.metric),
                    known=snapshot.take(self.ledger),
                    first_session=self.first_session,
                )
