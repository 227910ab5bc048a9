"""What the driver shows and writes while a campaign runs: for people, for machines, for plugins."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

from .. import preflight
from ..trial.output import one_line
from . import testreports
from .live import LiveView
from .logs import Logs

if TYPE_CHECKING:
    from ..session import Session
    from .livepage import LivePage


class Publisher:
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
            from .livepage import LivePage

            root = session.config.rootpath
            self._page = LivePage(root / session.options.html, root, session.plan.tag)
            self._page.start()

    def stop(self) -> None:
        """Take the live lines away."""
        if self._live is not None:
            self._live.stop()

    @property
    def speaks(self) -> bool:
        """Whether slots have lines of their own."""
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
        from .terminal import header

        return [*header(self.session), *self._waiting]

    def summarise(self, reporter: Any) -> None:
        """The block at the end; not with ``-qq``."""
        from .terminal import summary, write

        if self.session.config.option.verbose < -1:
            return
        reporter.section("autoresearch")
        with self._attempt("no summary"):
            for line in summary(self.session):
                write(reporter, line)

    # ------------------------------------------------------------------ a slot

    def finished(self, report: pytest.TestReport) -> None:
        """A slot has its verdict: print its line, write the logs, tell plugins."""
        with self._attempt("not everything was said of a slot"):
            self._mention_steering(dict(report.user_properties))
            if self._live is not None:
                self._live.finished(report)
        self.write_logs()
        with self._attempt("plugins did not hear of a slot"):
            self._announce(report)

    def failed(self, report: pytest.TestReport) -> None:
        """Infrastructure took a slot: print what broke."""
        if self._live is not None:
            self._live.failed(report)

    def _announce(self, report: pytest.TestReport) -> None:
        """Tell plugins of a verdict; what they raise is said and changes nothing."""
        from ..hookspecs import announce, artifacts_of

        row = dict(report.user_properties).get("ledger_row")
        if row is None:
            return
        session = self.session
        record = session.ledger.slot(int(str(row)))
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
        """Say with which slot a changed program was seen first."""
        ledger, program = self.session.ledger, self.session.plan.program
        row, brief = int(facts.get("ledger_row", 0)), facts.get("brief")
        earlier = [s for s in ledger.slots() if s.id < row and s.meta.get("brief")]
        if brief and earlier and earlier[-1].meta["brief"] != brief:
            name = ledger.slot(row).name
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
        from . import markdown

        text = markdown.render(
            session.plan.tag,
            session.ledger.slots(),
            session.ledger.champions(),
            session.experiment.metric,
            session.ledger.meta("closing"),
        )
        markdown.append(session.config.rootpath / session.options.summary, text)
