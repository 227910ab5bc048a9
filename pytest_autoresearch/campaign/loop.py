"""One attempt of a campaign: propose, mutate and measure.

The only module that knows this order. Every step is addressed by a ledger row, so the next session
finds a step that was cut off.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..core.errors import BaselineFailed, InfrastructureFailure
from ..core.outcome import NoScore, Trial
from ..core.proposal import (
    Edit,
    EditError,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    Proposer,
    ProposerError,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from ..core.run import Purpose
from ..core.text import one_line
from ..judge.parents import NextStep, next_step
from ..judge.verdicts import Judge, too_noisy
from ..ledger.git import CommitLost
from ..ledger.store import AttemptTaken, ChampionMoved, LedgerUnavailable
from ..proposers.draft import Draft, rewrite, with_brief
from ..source.edits import apply
from .attempt import WorkingAttempt
from .cleanup import discard_files
from .context import ContextBuilder
from .measure import Measurement
from .pause import LONGEST_S, PauseControl
from .record import Recorder
from .runs import Runner

if TYPE_CHECKING:
    from ..core.records import Attempt

BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 600.0
"""First and longest pause for an unavailable provider, in seconds; doubles in between."""

RETRY_S = (10.0, 60.0)
"""Seconds before each retry of a step that failed for infrastructure reasons."""


class Campaign:
    """One process's view of a campaign; processes share nothing but the ledger.

    Attributes:
        runner: Runs trainings and knows the champion.
        measurement: Makes scores and bars of them.
        recorder: Writes verdicts to the ledger and to git.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        judge: Judge,
        proposer: Callable[[], Proposer],
        session_id: int,
        worker: str,
        pauses: PauseControl,
    ) -> None:
        self.runner = runner
        self.measurement = Measurement(runner, judge, pauses.say)
        self.recorder = Recorder(runner, pauses.say)
        self.experiment = runner.experiment
        self.facts, self.settings = runner.facts, runner.settings
        self.ledger = runner.ledger
        self.session_id = session_id
        self.worker = worker
        self.pauses = pauses
        self._make_proposer = proposer
        self._proposer: Proposer | None = None
        self._draft = Draft(self.ledger.drop_draft)
        self._contexts = ContextBuilder(runner, pauses.say)

    @property
    def proposer(self) -> Proposer:
        """The proposer, created when first needed."""
        if self._proposer is None:
            self._proposer = self._make_proposer()
        return self._proposer

    # ------------------------------------------------------------------ propose and mutate

    def begin(self, name: str, kind: str, number: int) -> WorkingAttempt:
        """Open the attempt's ledger row; a mutation first waits for the baseline.

        While the ledger cannot be written, pause and retry.

        Raises:
            BaselineFailed: The baseline cannot be measured.
            LedgerUnavailable: The ledger could not be written for over a minute.
            ProposerExhausted: The session has to stop.
        """
        for seconds in RETRY_S:
            try:
                return self._begin(name, kind, number)
            except LedgerUnavailable as error:
                self.pauses.pause(seconds, f"{name}: {error}; it is tried again")
        return self._begin(name, kind, number)

    def _begin(self, name: str, kind: str, number: int) -> WorkingAttempt:
        # This process runs one attempt at a time: what still runs by its row has ended.
        self.ledger.free_unended(self.session_id)
        if kind != "baseline":
            self._calibrate()
        while True:
            try:
                return WorkingAttempt(
                    self.ledger.start_attempt(
                        session_id=self.session_id,
                        worker=self.worker,
                        name=name,
                        kind=kind,
                        number=number,
                    )
                )
            except AttemptTaken as taken:
                if kind != "baseline":
                    raise InfrastructureFailure(
                        f"{name} is {taken.record.state} already; run again, with higher numbers"
                    ) from None
                if taken.record.state == "done":
                    return WorkingAttempt(taken.record)
                self._wait()

    def propose(self, attempt: WorkingAttempt) -> None:
        """Fill the attempt with a proposal and apply its edits.

        A requeued proposal comes first, then a draft made during the last attempt, then a new
        one. While the provider is unavailable, pause and retry, for at most `LONGEST_S`.

        Raises:
            ProposerUnavailable: The pause became too long.
            ProposerExhausted: Nothing is left to propose, or the session has to stop.
        """
        waited, backoff = 0.0, BACKOFF_S
        while True:
            try:
                return self._propose(attempt)
            except (ProposerUnavailable, ProposerExhausted) as error:
                if error.usage not in (None, Usage()):
                    self.ledger.charge(attempt.record.id, error.usage)
                again = error.again_s if isinstance(error, ProposerUnavailable) else None
                seconds = max(backoff, again or 0.0)
                if again is None or waited + seconds > LONGEST_S:
                    raise
                self.pauses.pause(seconds, str(error))
            waited, backoff = waited + seconds, min(2 * backoff, LONGEST_BACKOFF_S)

    def _propose(self, attempt: WorkingAttempt) -> None:
        attempt.champion = self.runner.champion()
        bypass = self.proposer.bypass_queue
        step = self._next_step(attempt.record.number)
        parent = self._start_from(attempt, step.parent)
        requeued = None if bypass else self.ledger.lease_proposal(attempt.record.id)
        written_for: int | None = parent.id
        drafted = None
        program = self._contexts.program()
        if requeued is None and step.proposal is None and self._draft.late:
            self.measurement.second_seed(attempt)
        try:
            if requeued is not None:
                attempt.proposal, written_for = requeued
            elif step.proposal is not None:
                attempt.proposal = step.proposal
            else:
                context = self._contexts.context(attempt, step.hint)
                drafted = self._draft.take(program) if self.proposer.ahead(context) else None
                if drafted is not None:
                    attempt.proposal, written_for = drafted
                else:
                    attempt.proposal = self.proposer.propose(context)
        except ProposalRefused as error:
            self._refuse(attempt, f"the model declined: {error}", "refused", error.usage)
        except ProposalInvalid as error:
            title = error.title or "unusable proposal"
            self._refuse(attempt, str(error), title, error.usage, error.meta)
        if written_for not in (None, parent.id):
            # Written for other files than the parent policy chose: use those while the champion
            # is the same, else the new champion's.
            origin = self.ledger.attempt(written_for)
            current = origin.champion_before == attempt.champion.attempt_id and origin.commit
            self._start_from(attempt, written_for if current else attempt.champion.attempt_id)
        assert attempt.proposal is not None
        assert attempt.parent is not None
        if requeued is None:
            attempt.proposal = with_brief(attempt.proposal, program, step.proposal)
            self.ledger.save_proposal(attempt.record.id, attempt.proposal, parent=attempt.parent.id)
        if attempt.refusal is None:
            if drafted is not None:
                self._rewrite(attempt, program)
            self._mutate(attempt, written_for)

    def _start_from(self, attempt: WorkingAttempt, parent_id: int) -> Attempt:
        """Start from another attempt's files; from the champion's if git has lost them."""
        parent = self.ledger.attempt(parent_id)
        champion = self.runner.champion().attempt_id
        try:
            attempt.before = self.runner.read(parent.commit)
        except CommitLost as error:
            if parent_id == champion:
                raise
            self.pauses.say(f"warning: {parent.name} is no parent: {error}")
            return self._start_from(attempt, champion)
        attempt.parent, attempt.parent_commit = parent, parent.commit
        return parent

    def _refuse(
        self,
        attempt: WorkingAttempt,
        reason: str,
        title: str,
        usage: Usage | None,
        meta: Mapping[str, object] | None = None,
    ) -> None:
        attempt.refusal = NoScore("invalid", reason)
        attempt.proposal = Proposal(
            title, (), proposer=self.proposer.name, usage=usage or Usage(), meta=meta or {}
        )

    def adopt(self, attempt: WorkingAttempt, proposal: Proposal) -> None:
        """Fill an attempt with a given proposal for the champion's files."""
        attempt.champion = self.runner.champion()
        parent = self._start_from(attempt, attempt.champion.attempt_id)
        attempt.proposal = proposal
        self.ledger.save_proposal(attempt.record.id, proposal, parent=parent.id)
        self._mutate(attempt, None)

    def _next_step(self, number: int) -> NextStep:
        """Choose the parent, and whether an earlier idea is tried again first."""
        champion = self.runner.read(self.runner.champion().commit)

        def applies(edits: Sequence[Edit]) -> bool:
            try:
                return apply(champion, edits) != champion
            except EditError:
                return False

        return next_step(
            "champion" if self.proposer.fixed_order else self.settings.parents,
            self.ledger.attempts(),
            self.ledger.champions(),
            number,
            self.facts.seed,
            applies,
        )

    def _mutate(self, attempt: WorkingAttempt, written_for: int | None) -> None:
        """Apply the edits to the parent's files, or else to the files they were written for."""
        assert attempt.proposal is not None
        assert attempt.parent is not None
        own = attempt.parent.id
        for parent in dict.fromkeys((own, written_for or own)):
            if parent != own:
                self._start_from(attempt, parent)
            try:
                attempt.files = apply(attempt.before, attempt.proposal.edits)
                attempt.refusal = None
                return
            except EditError as error:
                attempt.refusal = NoScore("invalid", str(error))
        self._start_from(attempt, own)

    def _rewrite(self, attempt: WorkingAttempt, program: str) -> None:
        """Send a draft back once if it does not fit its new parent; if that fails, leave it."""
        assert attempt.proposal is not None
        assert attempt.parent is not None
        try:
            apply(attempt.before, attempt.proposal.edits)
        except EditError as fault:
            context = self._contexts.context(attempt)
            try:
                proposal = rewrite(self.proposer, context, attempt.proposal, str(fault))
            except ProposerError as error:
                if error.usage is not None:
                    self.ledger.charge(attempt.record.id, error.usage)
                return
            attempt.proposal = with_brief(proposal, program)
            self.ledger.save_proposal(attempt.record.id, attempt.proposal, attempt.parent.id)

    def draft_ahead(self, attempt: WorkingAttempt) -> None:
        """Start on the next proposal while this attempt trains, if the proposer is slow.

        Not while a requeued proposal waits, since that one comes first. The first proposal is made
        during the first baseline; one of several workers does, or theirs would be the same.
        """
        if not self.proposer.slow or self._draft.begun:
            return
        if self.ledger.proposal_waits(attempt.record.id):
            return
        if attempt.record.kind == "baseline":
            if attempt.record.number > 1:
                return
            ahead, hint, parent = WorkingAttempt(attempt.record), "", attempt.record
            ahead.parent, ahead.before = parent, self.runner.read(self.facts.base_commit)
        else:
            number = attempt.record.number + self.settings.concurrency
            step = self._next_step(number)
            ahead, hint = WorkingAttempt(replace(attempt.record, number=number)), step.hint
            parent = self._start_from(ahead, step.parent)
        context = self._contexts.context(ahead, hint)
        if not self.proposer.ahead(context):
            return
        self._draft.start(
            self.proposer,
            context,
            lambda proposal: self.ledger.add_draft(
                with_brief(proposal, context.program), parent.id, attempt.record.id
            ),
        )

    # ------------------------------------------------------------------ measure

    def measure(self, attempt: WorkingAttempt) -> Trial:
        """Measure an attempt; retry a mutation whose run failed for infrastructure reasons.

        Raises:
            BaselineFailed: The unchanged code cannot be measured.
            InfrastructureFailure: Every try failed.
        """
        for seconds in RETRY_S if attempt.record.kind == "mutation" else ():
            try:
                return self.measurement.measure(attempt)
            except InfrastructureFailure as error:
                last = self.ledger.attempt(attempt.record.id).runs[-1:]
                if not last or last[0].status != "infra":
                    raise  # the champion's failure, say, would repeat
                try:
                    self.pauses.pause(seconds, f"{attempt.name}: {error}; it is tried again")
                except ProposerExhausted:
                    raise error from None
            attempt.scores.clear()
        try:
            return self.measurement.measure(attempt)
        except InfrastructureFailure as error:
            if attempt.record.kind != "baseline":
                raise
            raise BaselineFailed(str(error)) from None

    # ------------------------------------------------------------------ baseline

    def _calibrate(self) -> None:
        """Wait until the baseline is measured; measure what no other process is measuring.

        Raises:
            BaselineFailed: The unchanged code has no score, or its scores scatter too much.
            ProposerExhausted: The session has to stop.
        """
        while self.ledger.champion() is None:
            baselines = [a for a in self.ledger.attempts() if a.kind == "baseline"]
            self._check_none_failed(baselines)
            scored = [a for a in baselines if a.score is not None]
            numbers = {a.number for a in scored}
            missing = [number for number in self.facts.baselines if number not in numbers]
            if not missing:
                self._promote_baseline(scored)
                continue
            running = {a.number for a in baselines if a.state == "running"}
            free = [number for number in missing if number not in running]
            if free:
                self._measure_baseline(free[0])
            else:
                self._wait()

    def _check_none_failed(self, baselines: Sequence[Attempt]) -> None:
        """Check that the baseline did not fail in another worker of this pytest run.

        Raises:
            BaselineFailed: It did, and would again.
        """
        sessions = self.ledger.sessions()
        [driver] = [one.driver for one in sessions if one.id == self.session_id]
        ours = {one.id for one in sessions if one.driver == driver}
        for attempt in baselines:
            if attempt.state == "done" and attempt.score is None and attempt.session_id in ours:
                raise BaselineFailed(
                    f"the baseline itself failed ({attempt.verdict}): {attempt.reason}; "
                    f"fix {self.experiment.files[0]} and run again"
                )

    def _wait(self) -> None:
        """Sleep a moment, then free what dead workers held."""
        self.pauses.wait()
        self.ledger.recover()

    def _measure_baseline(self, number: int) -> None:
        attempt = self._begin(f"baseline-{number}", "baseline", number)
        try:
            trial = self.measure(attempt)
            verdict = "baseline" if trial.value is not None else trial.verdict
            self.recorder.record_verdict(attempt, trial, verdict, trial.reason)
        except BaseException as error:
            self.requeue(attempt, "infra", one_line(error) or type(error).__name__)
            raise

    def _promote_baseline(self, scored: Sequence[Attempt]) -> None:
        scores = {
            run.seed: run.score
            for one in scored
            for run in one.runs
            if run.score is not None and run.purpose is Purpose.CALIBRATE
        }
        if trouble := too_noisy(scores.values(), self.settings.max_noise):
            raise BaselineFailed(trouble)
        try:
            self.ledger.promote(0, scored[0].id, self.facts.base_commit, scores)
        except ChampionMoved:
            return
        self.recorder.project()

    def requeue(self, attempt: WorkingAttempt, state: str, reason: str) -> None:
        """End an attempt without a verdict; its proposal waits for the next attempt.

        While the ledger cannot be written, nothing happens: the next `begin` ends the attempt.
        """
        discard_files(self.runner.executor.root, attempt.record.id)
        with contextlib.suppress(LedgerUnavailable):
            self.ledger.abandon_attempt(attempt.record.id, state, reason)

    def close(self) -> None:
        """Stop runs and helpers; a finished draft waits in the ledger."""
        self._draft.give_up()
        if self._proposer is not None:
            self._proposer.close()
