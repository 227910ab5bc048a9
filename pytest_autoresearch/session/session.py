"""One pytest process of a session: the hooks that pytest calls and the steps behind them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from typing import Any

import pytest

from ..campaign.ablate import ablate
from ..campaign.confirm import confirm
from ..campaign.facts import SessionSettings
from ..campaign.open import CampaignResources
from ..campaign.pause import PauseControl
from ..core.experiment import Experiment
from ..ledger import copy
from ..ledger.git import Repository
from ..ledger.store import Ledger, LedgerUnavailable
from ..options import Options
from ..proposers.registry import default
from ..report.terminal import SessionView
from . import preflight, testreports
from .attempts import Attempts
from .items import PLAN
from .plan import Plan, settle
from .reporter import Reporter
from .stopping import Signals, exit_code, stop_condition, terminate
from .view import view

SESSION = pytest.StashKey["Session"]()

INTERRUPTED = "interrupted"

OURS = "autoresearch: "
"""Prefix of the reason when the plugin itself stops; xdist carries it from a worker."""


@dataclass(eq=False)
class Session:
    """The part of a session that one process has; registered as a pytest plugin.

    Attributes:
        config: The pytest configuration.
        options: Options of the session.
        experiment: The declared experiment.
        plan: Decisions of the driver, shared with its workers.
        is_driver: False in an xdist worker.
        counts: Verdicts of this session (driver only).
        failures: Failed reports of this session (driver only).
        stopping: Reason why no further attempt starts, or ''.
    """

    config: pytest.Config
    options: Options
    experiment: Experiment
    plan: Plan
    is_driver: bool
    counts: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    stopping: str = ""
    _signals: Signals = field(default_factory=Signals)

    def __post_init__(self) -> None:
        self.config.stash[PLAN] = self.plan
        self.reporter = None
        if self.is_driver:
            self.reporter = Reporter(
                self.config,
                self.options,
                self.plan,
                self.experiment.metric,
                self.view,
                lambda: self.ledger,
                lambda: self.session_id,
            )
        settings = SessionSettings.select(vars(self.options))
        self.resources = CampaignResources(
            self.config.rootpath,
            self.plan.tag,
            self.experiment,
            self.plan.facts,
            replace(settings, concurrency=self.plan.concurrency),
            driver=self.plan.driver,
            config=vars(self.options),
            say=self._say,
            on_progress=lambda run_id, progress: self.attempts.show_progress(run_id, progress),
            should_stop=lambda: self.stopping == INTERRUPTED,
            pauses=PauseControl(self._over, self.plan.deadline, self._say, self._paused),
        )
        self.attempts = Attempts(self.resources, self.options.strict, self._stop)

    def _stop(self, reason: str) -> None:
        self.stopping = reason

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of the campaign."""
        return self.resources.ledger

    @property
    def session_id(self) -> int | None:
        """Return the ledger row of this process, or None before it has joined."""
        return self.resources.session_id

    @property
    def _proposer(self) -> str:
        return self.options.proposer or default(self.experiment)

    @property
    def _dry(self) -> bool:
        """Return whether pytest only lists items."""
        return bool(self.config.option.collectonly or self.config.option.setupplan)

    # ------------------------------------------------------------------ messages

    def view(self) -> SessionView:
        """Return what the terminal shows of this session."""
        return view(
            self.plan, self.options, self.experiment, self._proposer, self.stopping,
            lambda: self.ledger,
        )  # fmt: skip

    def _say(self, line: str) -> None:
        """Print a line; lines of workers and threads travel with the next report."""
        if self.reporter is None or threading.current_thread() is not threading.main_thread():
            self.attempts.lines.append(line)
            return
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            self.reporter.say(line)

    def _optional(self, what: str) -> AbstractContextManager[None]:
        """Run an optional step; if it fails, print one warning (driver only) and continue."""
        return self.reporter.optional(what) if self.reporter else contextlib.suppress(Exception)

    def _paused(self, line: str) -> None:
        """Show a pause in the live view, in workers with its reason; '' ends it."""
        shown = line if self.reporter is None else line.partition(": ")[0]
        self.attempts.show_phase(shown)

    # ------------------------------------------------------------------ reports

    @pytest.hookimpl(tryfirst=True)
    def pytest_report_teststatus(self, report: pytest.TestReport) -> Any:
        """Return category, letter and word of a verdict."""
        return testreports.status(report, self.reporter is not None and self.reporter.speaks)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Count verdicts, print result lines and rewrite the logs (driver only)."""
        if self.reporter is None:
            return
        for line in getattr(report, "autoresearch_lines", ()):
            self._say(line)
        self.failures += report.failed
        verdict = getattr(report, "autoresearch", None)
        if report.when == "call" and verdict:
            self.counts[verdict] += 1
            self.reporter.finished(report)
        elif report.failed:
            self.counts["infra"] += 1
            self.reporter.failed(report)

    # ------------------------------------------------------------------ start and stop

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Lock the campaign, then plan; handle signals like Ctrl-C, start the live view."""
        if self._dry:
            return
        if self.reporter is not None:
            with preflight.usage_errors():
                self.resources.join()
                self.plan = settle(self.plan, self.config.rootpath, self.experiment, self.ledger)
            self.config.stash[PLAN], self.resources.facts = self.plan, self.plan.facts
            attempts = self.options.iterations or 100
            for line in preflight.prepare_proposer(
                self.resources, self._proposer, self.plan.first, attempts
            ):
                self._say(line)
        self._signals.listen()
        if self.reporter is not None:
            self.reporter.start()

    def stop_reason(self) -> str:
        """Return the reason why no further attempt should start, or ''."""
        if not self.stopping:
            ledger = self.ledger if self.session_id is not None else None
            try:
                self.stopping = stop_condition(
                    self.plan, self.options, self.experiment.metric, self.resources.folder, ledger
                )
            except LedgerUnavailable as error:
                self.stopping = str(error)
                self.failures += 1
        return OURS + self.stopping if self.stopping else ""

    def _over(self) -> str:
        self.stop_reason()
        return self.stopping

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(
        self, item: pytest.Item, nextitem: pytest.Item | None
    ) -> Generator[None, object, object]:
        """After each item, stop if a stop condition holds (in workers, not the controller)."""
        self.attempts.more = nextitem is not None
        result = yield
        self.attempts.idle()
        if reason := self.stop_reason():
            item.session.shouldstop = reason
        return result

    @pytest.hookimpl(tryfirst=True)
    def pytest_keyboard_interrupt(self, excinfo: pytest.ExceptionInfo[BaseException]) -> None:
        """End running trainings at once on Ctrl-C.

        The stops of pytest and xdist are kinds of `KeyboardInterrupt` and arrive here as well,
        after the attempts in flight have ended.
        """
        error = excinfo.value
        text = str(error)
        if isinstance(error, pytest.Session.Interrupted):
            return  # by `stop_reason`, or by another plugin
        by_xdist = isinstance(error, KeyboardInterrupt) and type(error) is not KeyboardInterrupt
        if by_xdist and not text.endswith("received keyboard-interrupt"):
            self.stopping = text.removeprefix(OURS).removeprefix("stopping ")
            return
        self._interrupt()

    def _interrupt(self) -> None:
        self._signals.ignore()
        self.stopping = INTERRUPTED
        if self.reporter is not None:  # a signal to the driver alone is meant for its workers too
            with self._optional("not every worker was ended"):
                terminate(self.resources.workers())

    # ------------------------------------------------------------------ the end

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Set the exit code first and write the logs last.

        Ctrl-C while other plugins finish, or while champions are confirmed, is exit code 2, too.
        """
        session.exitstatus = self.exit_status(session.exitstatus)
        try:
            return (yield)
        except KeyboardInterrupt:
            self._interrupt()
            return None
        finally:
            if self.stopping == INTERRUPTED and self.is_driver:
                session.exitstatus = pytest.ExitCode.INTERRUPTED
            self._finish(int(session.exitstatus))

    def requeue(self) -> None:
        """Requeue the proposals of unfinished attempts, before the results are reported."""
        with self._optional("not every unfinished attempt was requeued"):
            self.attempts.requeue()
            if self.session_id is not None:
                self.ledger.recover()

    def exit_status(self, status: int) -> int:
        """Return the session's exit code; xdist workers keep pytest's."""
        if not self.is_driver:
            return int(status)
        own_stop = bool(self.stop_reason()) and self.stopping != INTERRUPTED
        least = self.options.min_keep
        return exit_code(status, self.counts, self.failures, min_keep=least, own_stop=own_stop)

    def confirm(self) -> None:
        """Ablate the keeps if asked to, then confirm the champion on fresh seeds."""
        tried = self.counts["keep"] + self.counts["discard"] > 0
        if not tried or self.session_id is None or self.stopping == INTERRUPTED:
            return
        try:
            campaign = self.resources.open()
            if self.options.ablate:
                ablate(campaign, self._say)
            champion, last = self.ledger.champion(), self.ledger.confirmation()
            new = champion and not (last and last.champion == champion.version)
            if self.options.confirm and new:
                confirm(campaign, self.options.confirm, say=self._say)
        except (Exception, KeyboardInterrupt) as error:
            reason = testreports.words(error)
            if isinstance(error, KeyboardInterrupt):
                self._interrupt()
                reason = INTERRUPTED
            remedy = "go on with: python -m pytest_autoresearch verify"
            self._say(f"confirmation not finished: {reason}; {remedy}")

    def _finish(self, status: int) -> None:
        """Leave the campaign and, in the driver, write the logs."""
        self._signals.ignore(also_ctrl_c=True)
        if self.reporter is not None:
            self.reporter.stop()
        self.attempts.idle()
        if self._dry:
            return
        if self.resources.campaign is not None:
            with self._optional("the campaign's branch and refs are not up to date"):
                self.resources.campaign.recorder.project()
        if self.session_id is not None:
            self.requeue()
            if self.is_driver:
                with self._optional("not every file of a run was removed"):
                    self.resources.sweep()
            with self._optional("the end of this session is not recorded"):
                self.ledger.end_session(self.session_id, status)
            if self.reporter is not None:
                self.reporter.write_logs(last=True)
                with self._optional("the ledger is not copied to git"):
                    if self.ledger.champion() is not None:
                        copy.save(Repository.open(self.config.rootpath), self.ledger)

    def pytest_report_header(self) -> list[str]:
        """Return the lines of the header."""
        return self.reporter.header() if self.reporter is not None else []

    def pytest_terminal_summary(self, terminalreporter: Any) -> None:
        """Print the summary."""
        if self.reporter is not None and not self._dry:
            self.reporter.summarise(terminalreporter)

    def pytest_unconfigure(self) -> None:
        """Release locks and child processes, whatever happened; safe to call twice."""
        with self._optional("not every resource was released"):
            self.resources.close()
        self._signals.restore()
