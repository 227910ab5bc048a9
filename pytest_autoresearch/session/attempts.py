"""The attempts that one pytest process works on: fixtures, verdicts and test reports."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator, Iterator

import pytest

from ..campaign.attempt import WorkingAttempt
from ..campaign.check import check
from ..campaign.loop import Campaign
from ..campaign.open import CampaignResources
from ..campaign.pause import PastDeadline
from ..core.errors import BaselineFailed
from ..core.outcome import NoScore, Score, Trial
from ..core.proposal import ProposerExhausted
from ..core.run import Progress, Purpose
from ..core.text import one_line
from ..ledger.status import clear_status, write_status
from ..ledger.store import ChampionMoved, LedgerUnavailable
from ..report.junit import properties
from . import testreports
from .items import AttemptItem

NO_BASELINE = "there is no usable baseline"


class Attempts:
    """The hooks and fixtures of attempts; registered as a pytest plugin.

    Args:
        resources: The campaign's objects in this process.
        strict: Report a mutation that is not kept as a failed test.
        stop: Called with the reason when no further attempt should start.

    Attributes:
        working: Attempts without a verdict, by the id of their item.
        lines: Lines to print with the next report.
        more: Whether this process has another item after the current one.
    """

    def __init__(
        self, resources: CampaignResources, strict: bool, stop: Callable[[str], None]
    ) -> None:
        self._resources, self._strict, self._stop = resources, strict, stop
        self.working: dict[str, WorkingAttempt] = {}
        self.lines: list[str] = []
        self.more = False

    @property
    def _campaign(self) -> Campaign:
        return self._resources.open()

    # ------------------------------------------------------------------ the live view

    def show(self, attempt: WorkingAttempt, purpose: Purpose | None, progress: Progress) -> None:
        """Show what this process does in the live view."""
        write_status(
            self._resources.folder,
            self._resources.worker,
            attempt.name,
            purpose,
            progress,
            title=attempt.proposal.title if attempt.proposal else "",
            champion=attempt.champion.mean if attempt.champion else None,
        )

    def show_progress(self, run_id: str, progress: Progress) -> None:
        """Show the progress of the run that trains."""
        campaign = self._resources.campaign
        if campaign is not None and campaign.runner.running is not None:
            self.show(*campaign.runner.running, progress)

    def show_phase(self, phase: str) -> None:
        """Show a phase of every attempt; '' is the phase that the attempt is in."""
        for attempt in self.working.values():
            own = "start" if attempt.proposal else "propose"
            self.show(attempt, None, Progress(phase or own))

    def idle(self) -> None:
        """Clear this process's line of the live view."""
        clear_status(self._resources.folder, self._resources.worker)

    # ------------------------------------------------------------------ fixtures

    def propose(self, item: AttemptItem) -> WorkingAttempt:
        """Open the attempt of an item and fetch its proposal."""
        campaign = self._campaign
        with self._stopping():
            try:
                attempt = campaign.begin(item.name, item.kind, item.number)
            except LedgerUnavailable as error:
                self._stop(one_line(error))
                raise
            self.working[item.nodeid] = attempt
            if item.kind == "mutation":
                self.show(attempt, None, Progress("propose"))
                campaign.propose(attempt)
        if attempt.proposal is not None:
            self._resources.researcher.note(attempt.proposal.meta, attempt.name)
        return attempt

    @contextlib.contextmanager
    def _stopping(self) -> Iterator[None]:
        """Let this attempt be the last one if nothing can be proposed or compared any more."""
        try:
            yield
        except BaselineFailed:
            self._stop(NO_BASELINE)
            raise
        except ProposerExhausted as error:
            reason = one_line(error) or "nothing is left to propose"
            self._stop(reason)
            if isinstance(error, PastDeadline):
                raise
            pytest.skip(reason)

    def train(self, item: AttemptItem, attempt: WorkingAttempt) -> Trial:
        """Check, train, score and replicate an attempt."""
        check(self._campaign.runner, attempt)
        if self.more:
            self._campaign.draft_ahead(attempt)
        with self._stopping():
            return self._campaign.measure(attempt)

    def bar(self, item: AttemptItem) -> Score:
        """Return the score that the attempt must beat."""
        return self._campaign.measurement.bar(self.working[item.nodeid])

    # ------------------------------------------------------------------ verdicts

    @pytest.hookimpl(wrapper=True)
    def pytest_pyfunc_call(self, pyfuncitem: pytest.Function) -> Generator[None, object, object]:
        """Run the assertion and record the verdict within the call phase."""
        if not isinstance(pyfuncitem, AttemptItem):
            return (yield)
        item = pyfuncitem
        trial = item.funcargs.get("trial")
        try:
            result = yield
        except NoScore as error:
            self._record(item, trial, error.verdict, error.reason)
            raise
        except AssertionError as error:
            best = item.funcargs.get("best")
            reason = str(error)
            if isinstance(best, Score):
                value = trial.value if isinstance(trial, Trial) else None
                why = best.explanation or reason
                reason = f"{value:.6f} is not better than {float(best):.6f}: {why}"
            self._discard(item, trial, reason, error)
            raise
        try:
            self._record_pass(item, trial)
        except ChampionMoved:
            self._judge_again(item, trial)
        return result

    def _record_pass(self, item: AttemptItem, trial: object) -> None:
        self._record(item, trial, "baseline" if item.kind == "baseline" else "keep", "")

    def _judge_again(self, item: AttemptItem, trial: object) -> None:
        """Compare a keep with the champions that others have made meanwhile."""
        assert isinstance(trial, Trial)
        while True:
            bar = self.bar(item)
            if not trial.score < bar:
                reason = f"beaten meanwhile: the bar moved to {float(bar):.6f}"
                error = AssertionError(reason)
                self._discard(item, trial, reason, error)
                raise error
            with contextlib.suppress(ChampionMoved):
                return self._record_pass(item, trial)

    def _discard(
        self, item: AttemptItem, trial: object, reason: str, error: AssertionError
    ) -> None:
        error.autoresearch_reason = reason  # type: ignore[attr-defined]
        self._record(item, trial, "discard", reason)

    def _record(self, item: AttemptItem, trial: object, verdict: str, reason: str) -> None:
        attempt = self.working.get(item.nodeid)
        if attempt is None or not isinstance(trial, Trial):
            return
        if item.kind == "baseline" and verdict != "baseline":
            self._stop(NO_BASELINE)
        record = self._campaign.recorder.record_verdict(attempt, trial, verdict, reason)
        del self.working[item.nodeid]
        self.idle()
        related = (record.parent, record.champion_before, record.champion_after)
        names = {row: self._campaign.ledger.attempt(row).name for row in related if row is not None}
        item.user_properties.extend(properties(record, self._resources.experiment.metric, names))

    def requeue(self) -> None:
        """Requeue the proposals of unfinished attempts."""
        attempts, self.working = self.working, {}
        for attempt in attempts.values():
            self._campaign.requeue(attempt, "interrupted", "the session was interrupted")

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
        report.autoresearch_lines, self.lines = self.lines, []  # type: ignore[attr-defined]
        verdict = str(dict(report.user_properties).get("verdict") or "")
        if call.excinfo is None:
            if report.when == "call" and verdict:
                report.autoresearch = verdict  # type: ignore[attr-defined]
            return
        error = call.excinfo.value
        attempt = self.working.pop(item.nodeid, None)
        if attempt is not None:
            interrupted = isinstance(error, KeyboardInterrupt | pytest.skip.Exception)
            state = "interrupted" if interrupted else "infra"
            self._campaign.requeue(attempt, state, testreports.words(error))
        elif verdict:
            strict = self._strict or item.config.getoption("runxfail", False)
            fails = strict or item.kind == "baseline"
            testreports.shape(report, error, verdict, fails=fails)
            return
        if report.failed:
            testreports.shorten(report, call.excinfo)
