"""One pytest process of a session: the hooks that pytest calls and the steps behind them."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Generator, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import pytest

from ..campaign.attempt import WorkingAttempt
from ..campaign.facts import SessionSettings
from ..campaign.loop import Campaign
from ..campaign.open import CampaignResources
from ..campaign.pause import PastDeadline, PauseControl
from ..core.errors import BaselineFailed
from ..core.experiment import Experiment
from ..core.outcome import NoScore, Score, Trial
from ..core.proposal import ProposerExhausted
from ..core.run import Progress, Purpose
from ..core.text import one_line
from ..ledger import copy
from ..ledger.git import Repository
from ..ledger.status import clear_status, write_status
from ..ledger.store import ChampionMoved, Ledger, LedgerUnavailable
from ..options import Options
from ..proposers.registry import default
from ..report.junit import properties
from ..report.terminal import SessionView
from . import preflight, testreports
from .items import PLAN, AttemptItem
from .plan import Plan
from .reporter import Reporter
from .stopping import Signals, exit_code, stop_condition, terminate
from .view import view

SESSION = pytest.StashKey["Session"]()

INTERRUPTED = "interrupted"

NO_BASELINE = "there is no usable baseline"

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
        more: Whether this process has another item after the current one.
    """

    config: pytest.Config
    options: Options
    experiment: Experiment
    plan: Plan
    is_driver: bool
    counts: Counter[str] = field(default_factory=Counter)
    failures: int = 0
    stopping: str = ""
    more: bool = False
    _attempts: dict[str, WorkingAttempt] = field(default_factory=dict)
    _signals: Signals = field(default_factory=Signals)
    _lines: list[str] = field(default_factory=list)

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
            on_progress=self._progress,
            should_stop=lambda: self.stopping == INTERRUPTED,
            pauses=PauseControl(self._over, self.plan.deadline, self._say, self._paused),
        )

    # ------------------------------------------------------------------ campaign

    @property
    def folder(self) -> Path:
        """Return the folder of the campaign."""
        return self.resources.folder

    @property
    def ledger(self) -> Ledger:
        """Return the ledger of the campaign."""
        return self.resources.ledger

    @property
    def session_id(self) -> int | None:
        """Return the ledger row of this process, or None before it has joined."""
        return self.resources.session_id

    def campaign(self) -> Campaign:
        """Return the campaign of this process, opened when the first attempt runs."""
        return self.resources.open()

    @property
    def proposer(self) -> str:
        """Return the name of the proposer."""
        return self.options.proposer or default()

    def view(self) -> SessionView:
        """Return what the terminal shows of this session."""
        return view(
            self.plan, self.options, self.experiment, self.proposer, self.stopping,
            lambda: self.ledger,
        )  # fmt: skip

    def _say(self, line: str) -> None:
        """Print a line; lines of workers and threads travel with the next report."""
        if self.reporter is None or threading.current_thread() is not threading.main_thread():
            self._lines.append(line)
            return
        capture = self.config.pluginmanager.getplugin("capturemanager")
        with capture.global_and_fixture_disabled() if capture else contextlib.nullcontext():
            self.reporter.say(line)

    @contextlib.contextmanager
    def _optional(self, what: str) -> Iterator[None]:
        """Run an optional step; if it fails, print one warning and continue."""
        try:
            yield
        except Exception as error:
            if self.reporter is not None:
                self.reporter.warn(what, error)

    def _paused(self, line: str) -> None:
        """Show a pause in the live view, in workers with its reason; '' ends it."""
        shown = line if self.reporter is None else line.partition(": ")[0]
        for attempt in self._attempts.values():
            phase = shown or ("start" if attempt.proposal else "propose")
            self._show(attempt, None, Progress(phase))

    # ------------------------------------------------------------------ fixtures

    def propose(self, item: AttemptItem) -> WorkingAttempt:
        """Open the attempt of an item and fetch its proposal."""
        campaign = self.campaign()
        with self._stopping():
            try:
                attempt = campaign.begin(item.name, item.kind, item.number)
            except LedgerUnavailable as error:
                self.stopping = one_line(error)
                raise
            self._attempts[item.nodeid] = attempt
            if item.kind == "mutation":
                self._show(attempt, None, Progress("propose"))
                campaign.propose(attempt)
        if attempt.proposal is not None:
            self.resources.researcher.note(attempt.proposal.meta, attempt.name)
        return attempt

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Let this attempt be the last one if nothing can be proposed or compared any more."""
        try:
            yield
        except BaselineFailed:
            self.stopping = NO_BASELINE
            raise
        except ProposerExhausted as error:
            self.stopping = one_line(error) or "nothing is left to propose"
            if isinstance(error, PastDeadline):
                raise
            pytest.skip(self.stopping)

    def train(self, item: AttemptItem, attempt: WorkingAttempt) -> Trial:
        """Check, train, score and replicate an attempt."""
        campaign = self.campaign()
        campaign.check(attempt)
        if self.more and item.kind == "mutation":
            campaign.draft_ahead(attempt)
        with self._stopping():
            return campaign.measure(attempt)

    def bar(self, item: AttemptItem) -> Score:
        """Return the score that the attempt must beat."""
        return self.campaign().measurement.bar(self._attempts[item.nodeid])

    # ------------------------------------------------------------------ the call phase

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Run the assertion and record the verdict within the call phase."""
        if not isinstance(pyfuncitem, AttemptItem):
            return (yield)
        item = pyfuncitem
        attempt = self._attempts.get(item.nodeid)
        trial = item.funcargs.get("trial")
        try:
            result = yield
        except NoScore as error:
            self._record(item, attempt, trial, error.verdict, error.reason)
            raise
        except AssertionError as error:
            best = item.funcargs.get("best")
            why = getattr(best, "explanation", "") or str(error)
            value = trial.value if isinstance(trial, Trial) else None
            shown = why
            if isinstance(best, Score):
                shown = f"{value:.6f} is not better than {float(best):.6f}: {why}"
            error.autoresearch_reason = shown  # type: ignore[attr-defined]
            self._record(item, attempt, trial, "discard", shown)
            raise
        if attempt is not None:
            verdict = "baseline" if item.kind == "baseline" else "keep"
            self._record_pass(item, attempt, trial, verdict)
        return result

    def _record_pass(
        self, item: AttemptItem, attempt: WorkingAttempt, trial: Any, verdict: str
    ) -> None:
        while True:
            try:
                self._record(item, attempt, trial, verdict, "")
                return
            except ChampionMoved:
                bar = self.campaign().measurement.bar(attempt)
                if not trial.score < bar:
                    reason = f"beaten meanwhile: the bar moved to {float(bar):.6f}"
                    self._record(item, attempt, trial, "discard", reason)
                    error = AssertionError(reason)
                    error.autoresearch_reason = reason  # type: ignore[attr-defined]
                    raise error from None

    def _record(
        self, item: AttemptItem, attempt: Any, trial: Any, verdict: str, reason: str
    ) -> None:
        if attempt is None or not isinstance(trial, Trial):
            return
        if item.kind == "baseline" and verdict != "baseline":
            self.stopping = NO_BASELINE
        record = self.campaign().recorder.record_verdict(attempt, trial, verdict, reason)
        self._attempts.pop(item.nodeid, None)
        self.idle()
        names = {one.id: one.name for one in self.campaign().ledger.attempts()}
        item.user_properties.extend(properties(record, self.experiment.metric, names))

    # ------------------------------------------------------------------ reports

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_makereport(
        self, item: pytest.Item, call: pytest.CallInfo[None]
    ) -> Generator[None, pytest.TestReport, pytest.TestReport]:
        """Report a discard as an expected failure and infrastructure as an error."""
        report = yield
        if isinstance(item, AttemptItem):
            self._shape_report(item, call, report)
        return report

    def _shape_report(
        self, item: AttemptItem, call: pytest.CallInfo[None], report: pytest.TestReport
    ) -> None:
        """Set the outcome of a report from the verdict; requeue what did not finish."""
        report.autoresearch_lines, self._lines = self._lines, []  # type: ignore[attr-defined]
        verdict = str(dict(report.user_properties).get("verdict") or "")
        if call.excinfo is None:
            if report.when == "call" and verdict:
                report.autoresearch = verdict  # type: ignore[attr-defined]
            return
        attempt = self._attempts.pop(item.nodeid, None)
        if attempt is not None and self.resources.campaign is not None:
            interrupted = call.excinfo.errisinstance((KeyboardInterrupt, pytest.skip.Exception))
            state = "interrupted" if interrupted else "infra"
            reason = testreports.words(call.excinfo.value)
            self.resources.campaign.requeue(attempt, state, reason)
        elif verdict:
            self._shape_verdict(item, call.excinfo.value, report, verdict)
            return
        if report.failed:
            testreports.shorten(report, call.excinfo)

    def _shape_verdict(
        self, item: AttemptItem, error: BaseException, report: pytest.TestReport, verdict: str
    ) -> None:
        runxfail = self.config.getoption("runxfail", False)
        fails = self.options.strict or runxfail or item.kind == "baseline"
        testreports.shape(report, error, verdict, fails=fails)

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

    # ------------------------------------------------------------------ session

    def for_worker(self) -> str:
        """Return the plan as text for xdist."""
        return self.plan.to_json()

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionstart(self) -> None:
        """Lock the campaign, handle signals like Ctrl-C, start the live view."""
        if self._dry:
            return
        if self.reporter is not None:
            attempts = self.options.iterations or 100
            for line in preflight.prepare_proposer(
                self.resources, self.proposer, self.plan.first, attempts
            ):
                self._say(line)
            with preflight.usage_errors():
                self.resources.join()
        self._signals.listen()
        if self.reporter is not None:
            self.reporter.start()

    def _progress(self, run_id: str, progress: Progress) -> None:
        campaign = self.resources.campaign
        if campaign is not None and campaign.runner.running is not None:
            self._show(*campaign.runner.running, progress)

    def _show(self, attempt: WorkingAttempt, purpose: Purpose | None, progress: Progress) -> None:
        write_status(
            self.folder,
            self.resources.worker,
            attempt.name,
            purpose,
            progress,
            title=attempt.proposal.title if attempt.proposal else "",
            champion=attempt.champion.mean if attempt.champion else None,
        )

    def idle(self) -> None:
        """Clear this process's line of the live view."""
        clear_status(self.folder, self.resources.worker)

    def stop_reason(self) -> str:
        """Return the reason why no further attempt should start, or ''."""
        if not self.stopping:
            ledger = self.ledger if self.session_id is not None else None
            try:
                self.stopping = stop_condition(
                    self.plan, self.options, self.experiment.metric, self.folder, ledger
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
        self.more = nextitem is not None
        result = yield
        self.idle()
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
        self._signals.ignore()
        self.stopping = INTERRUPTED
        if self.reporter is not None:  # a signal to the driver alone is meant for its workers too
            with self._optional("not every worker was ended"):
                terminate(self.resources.workers())

    def requeue(self) -> None:
        """Requeue the proposals of unfinished attempts, before the results are reported."""
        attempts, self._attempts = self._attempts, {}
        with self._optional("not every unfinished attempt was requeued"):
            for attempt in attempts.values():
                self.campaign().requeue(attempt, "interrupted", "the session was interrupted")
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
        from ..campaign.ablate import ablate
        from ..campaign.confirm import confirm, tolerate_failure

        tried = self.counts["keep"] + self.counts["discard"] > 0
        if not tried or self.session_id is None or self.stopping == INTERRUPTED:
            return
        with tolerate_failure(self._say):
            if self.options.ablate:
                ablate(self.campaign(), self._say)
            champion, last = self.ledger.champion(), self.ledger.confirmation()
            new = champion and not (last and last.champion == champion.version)
            if self.options.confirm and new:
                confirm(self.campaign(), self.options.confirm, say=self._say)

    @pytest.hookimpl(wrapper=True, tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> Generator[None, object, object]:
        """Set the exit code first; write the logs last, after pytest's own junit writer."""
        session.exitstatus = self.exit_status(session.exitstatus)
        try:
            return (yield)
        finally:
            self._finish(int(session.exitstatus))

    def _finish(self, status: int) -> None:
        """Leave the campaign and, in the driver, write the logs."""
        if self.reporter is not None:
            self.reporter.stop()
        self.idle()
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

    @property
    def _dry(self) -> bool:
        """Return whether pytest only lists items."""
        return bool(self.config.option.collectonly or self.config.option.setupplan)
