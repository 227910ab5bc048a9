"""The one step of research, in order: propose, mutate, gate, measure, record.

The only place that knows the order. Every step is addressed by a ledger row, so a step that was
cut off is found again by the next session.
"""

from __future__ import annotations

import hashlib
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import TYPE_CHECKING, Any

from ..core.errors import InfrastructureFailure
from ..core.outcome import NoScore, Trial
from ..core.proposal import (
    Edit,
    EditError,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    Proposer,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from ..core.records import CheckNote
from ..judge.parents import NextStep, built_on, next_step, stack
from ..proposers.draft import Draft
from ..source.edits import apply, changed_lines
from .attempt import WorkingAttempt
from .context import Briefing
from .measure import Measurement
from .pause import LONGEST_S, Night

if TYPE_CHECKING:
    from ..core.records import Attempt, Champion
    from ..judge.verdicts import Judge
    from .runs import Runner

NEAR = 0.05
"""Share by which numbers may differ in a near duplicate, which is noted and not refused."""

BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 600.0
"""Least seconds of an attempt's first pause for a provider that is away; doubles up to the second."""

RETRY_S = (10.0, 60.0)
"""Seconds before a mutation is trained again, in the same attempt, that the infrastructure failed."""

NEAR_LOOK_BACK = 200
"""Attempts that are searched for near duplicates."""


class Campaign:
    """One process's hands on a campaign; the ledger is what all of them share.

    Attributes:
        trials: Runs them, and knows the champion.
        measurement: Makes a score and a bar of them.
    """

    def __init__(
        self,
        *,
        runner: Runner,
        judge: Judge,
        proposer: Callable[[], Proposer],
        session_id: int,
        worker: str,
        night: Night | None = None,
    ) -> None:
        self.runner = runner
        self.measurement = Measurement(runner, judge)
        self.root, self.experiment, self.rules = runner.root, runner.experiment, runner.rules
        self.ledger, self.repository = runner.ledger, runner.repository
        self.session_id = session_id
        self.worker = worker
        self.night = night or Night()
        self._make_proposer = proposer
        self._proposer: Proposer | None = None
        self._draft = Draft(self.ledger.drop_draft)
        self._briefing = Briefing(runner, self.night.say)

    # ------------------------------------------------------------------ 1-2: propose and mutate

    def begin(self, name: str, kind: str, number: int) -> WorkingAttempt:
        """Open the attempt's ledger row; a mutation first waits for the baseline."""
        from ..ledger.store import AttemptTaken

        if kind != "baseline":
            self.calibrated()
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
                if taken.record.state == "done":
                    return WorkingAttempt(taken.record)
                self.runner.wait(f"while {name} was measured by another worker")

    def propose(self, attempt: WorkingAttempt) -> WorkingAttempt:
        """Fill the attempt with a proposal and apply its edits to the champion's files.

        A proposal that an interrupted attempt gave back comes before a new one, and one that was
        drafted while the last trial ran before one that must be waited for. A provider that is
        away is asked again, as long as the night lasts, and at most for `LONGEST_S`.

        Raises:
            ProposerUnavailable: Infrastructure; the attempt is not charged.
            ProposerExhausted: Nothing is left to propose, or the night is over.
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
                self.night.pause(seconds, str(error))
            waited, backoff = waited + seconds, min(2 * backoff, LONGEST_BACKOFF_S)

    def _propose(self, attempt: WorkingAttempt) -> WorkingAttempt:
        """Try once to fill the attempt."""
        attempt.champion = self.runner.champion()
        own = self.proposer.bypass_queue
        next_step = self._next_step(attempt.record.number)
        attempt.parent = self.ledger.attempt(next_step.parent)
        attempt.parent_commit = attempt.parent.commit
        attempt.before = self.runner.read(attempt.parent.commit)
        waiting = None if own else self.ledger.lease_proposal(attempt.record.id)
        made_for: int | None = attempt.parent.id
        program = self._briefing.program()
        try:
            if waiting is not None:
                attempt.proposal, made_for = waiting
            elif next_step.proposal is not None:
                attempt.proposal = next_step.proposal
            else:
                attempt.proposal, made_for = self._draft.take(program) or (
                    self.proposer.propose(self._briefing.context(attempt, next_step.hint)),
                    made_for,
                )
        except ProposalRefused as error:
            attempt.refusal = NoScore("invalid", f"the model declined: {error}")
            attempt.proposal = Proposal(
                "refused", (), proposer=self.proposer.name, usage=error.usage or Usage()
            )
        except ProposalInvalid as error:
            attempt.refusal = NoScore("invalid", str(error))
            attempt.proposal = Proposal(
                error.title or "unusable proposal",
                (),
                proposer=self.proposer.name,
                usage=error.usage or Usage(),
                meta=error.meta,
            )
        if made_for not in (None, attempt.parent.id):
            # thought of for other files than the policy chose: those, while the champion is the
            # same; else the new champion's, or else those
            made = self.ledger.attempt(made_for)
            current = made.champion_before == attempt.champion.attempt_id and made.commit
            attempt.parent = made if current else self.ledger.attempt(attempt.champion.attempt_id)
            attempt.parent_commit = attempt.parent.commit
            attempt.before = self.runner.read(attempt.parent_commit)
        if waiting is None:
            attempt.proposal = _signed(attempt.proposal, program, next_step.proposal)
            self.ledger.save_proposal(attempt.record.id, attempt.proposal, parent=attempt.parent.id)
        if attempt.refusal is None:
            self._mutate(attempt, made_for)
        return attempt

    def adopt(self, attempt: WorkingAttempt, proposal: Proposal) -> None:
        """Fill an attempt with a given proposal for the champion's files."""
        attempt.champion = self.runner.champion()
        attempt.parent = self.ledger.attempt(attempt.champion.attempt_id)
        attempt.parent_commit = attempt.champion.commit
        attempt.before = self.runner.read(attempt.champion.commit)
        attempt.proposal = proposal
        self.ledger.save_proposal(attempt.record.id, proposal, parent=attempt.parent.id)
        self._mutate(attempt, None)

    def _next_step(self, number: int) -> NextStep:
        """Whose files are changed, and whether an old idea comes first."""
        recorded = self.proposer.fixed_order  # is mixed with nothing else
        champion = self.runner.read(self.runner.champion().commit)

        def applies(edits: Sequence[Edit]) -> bool:
            try:
                return apply(champion, edits) != champion
            except EditError:
                return False

        return next_step(
            "champion" if recorded else self.rules.parents,
            self.ledger.attempts(),
            self.ledger.champions(),
            number,
            self.rules.seed,
            applies,
        )

    def _mutate(self, attempt: WorkingAttempt, made_for: int | None) -> None:
        """Apply the edits to the champion, or else to the files that they were made for."""
        assert attempt.proposal is not None
        assert attempt.parent is not None
        try:
            attempt.files = apply(attempt.before, attempt.proposal.edits)
            return
        except EditError as error:
            refusal = NoScore("invalid", str(error))
        if made_for is not None and made_for != attempt.parent.id:
            parent = self.ledger.attempt(made_for)
            before = self.runner.read(parent.commit)
            try:
                attempt.files = apply(before, attempt.proposal.edits)
            except EditError as error:
                refusal = NoScore("invalid", str(error))
            else:
                attempt.parent, attempt.parent_commit, attempt.before = (
                    parent,
                    parent.commit,
                    before,
                )
                return
        attempt.refusal = refusal

    def draft_ahead(self, attempt: WorkingAttempt) -> None:
        """Have the next proposal thought of while this attempt trains, if thinking takes long.

        Not where one waits that was given back: it comes first.
        """
        if not self.proposer.slow or self._draft.begun:
            return
        if self.ledger.proposal_waits(attempt.record.id):
            return
        number = attempt.record.number + self.rules.concurrency
        next_step = self._next_step(number)
        parent = self.ledger.attempt(next_step.parent)
        ahead = WorkingAttempt(
            replace(attempt.record, number=number), parent, before=self.runner.read(parent.commit)
        )
        context, during = self._briefing.context(ahead, next_step.hint), attempt.record.id
        self._draft.start(
            self.proposer,
            context,
            lambda proposal: self.ledger.add_draft(
                _signed(proposal, context.program), parent.id, during
            ),
        )

    @property
    def proposer(self) -> Proposer:
        """The proposer, created when first needed."""
        if self._proposer is None:
            self._proposer = self._make_proposer()
        return self._proposer

    # ------------------------------------------------------------------ 3: gate

    def check(self, attempt: WorkingAttempt) -> None:
        """Run every check that costs no training; the first that fails refuses the attempt."""
        from ..source.checks import run_checks
        from ..source.fingerprint import fingerprint

        if attempt.refusal is not None or attempt.proposal is None:
            return
        attempt.fingerprint = fingerprint(attempt.files)
        notes = run_checks(attempt.before, attempt.files)
        self.ledger.add_check_notes(attempt.record.id, notes)
        if not notes[-1].ok:
            attempt.refusal = NoScore("invalid", notes[-1].detail)
            return
        if near := self._near_duplicate(attempt):
            self.ledger.add_check_notes(attempt.record.id, [near])
        earlier = self.ledger.claim_fingerprint(attempt.record.id, attempt.fingerprint)
        if earlier is not None:
            known = earlier.verdict or "still running"
            score = f" at {earlier.score:.6f}" if earlier.score is not None else ""
            attempt.refusal = NoScore(
                "duplicate", f"same code as {earlier.name} ({earlier.title}): {known}{score}"
            )

    def _near_duplicate(self, attempt: WorkingAttempt) -> CheckNote | None:
        """Note what differs from an earlier mutation in slightly other numbers only."""
        from ..source.fingerprint import shape

        started, this = time.perf_counter(), shape(attempt.files)
        for record in reversed(self.ledger.attempts()[-NEAR_LOOK_BACK:]):
            if record.id == attempt.record.id or not record.commit or record.kind == "baseline":
                continue
            if this.close_to(self.runner.shape(record.commit), NEAR):
                detail = f"nearly {record.name} ({record.title}): {record.verdict}"
                return CheckNote("near duplicate", True, detail, time.perf_counter() - started)
        return None

    # ------------------------------------------------------------------ 4-6: measure

    def measure(self, attempt: WorkingAttempt) -> Trial:
        """Measure it; a trial of a mutation that the infrastructure failed is not the last one.

        Raises:
            InfrastructureFailure: It failed each time.
        """
        for seconds in RETRY_S if attempt.record.kind == "mutation" else ():
            try:
                return self.measurement.measure(attempt)
            except InfrastructureFailure as error:
                last = self.ledger.attempt(attempt.record.id).runs[-1:]
                if not last or last[0].status != "infra":
                    raise  # the champion's fault, say: it would be again
                try:
                    self.night.pause(seconds, f"{attempt.name}: {error}; it is tried again")
                except ProposerExhausted:
                    raise error from None
            attempt.scores.clear()
        return self.measurement.measure(attempt)

    # ------------------------------------------------------------------ baseline and noise

    def calibrated(self) -> Champion:
        """Wait until the baseline is measured; measure what nobody is measuring.

        Raises:
            InfrastructureFailure: The unchanged code has no score, so nothing can be compared.
        """
        while True:
            if champion := self.ledger.champion():
                return champion
            missing = self.missing_baselines()
            if not missing:
                self._promote_baseline()
                continue
            busy = {
                s.number
                for s in self.ledger.attempts()
                if s.kind == "baseline" and s.state == "running"
            }
            free = [number for number in missing if number not in busy]
            if free:
                self.fill_baseline(free[0])
            else:
                self.runner.wait("while waiting for the baseline")

    def missing_baselines(self) -> list[int]:
        """Numbers of the calibration attempts without a score."""
        done = {
            s.number for s in self.ledger.attempts() if s.kind == "baseline" and s.score is not None
        }
        return [n for n in range(1, self.rules.calibrate + 1) if n not in done]

    def fill_baseline(self, number: int) -> Trial:
        """Measure one calibration seed as an attempt of its own."""
        attempt = self.begin(f"baseline-{number}", "baseline", number)
        trial = self.measurement.measure(attempt)
        self.settle(
            attempt, trial, "baseline" if trial.value is not None else trial.verdict, trial.reason
        )
        if trial.value is None:
            raise InfrastructureFailure(
                f"the baseline itself failed ({trial.verdict}): {trial.reason}; "
                f"mend {self.experiment.files[0]} first"
            )
        return trial

    def _promote_baseline(self) -> None:
        from ..judge.verdicts import too_noisy
        from ..ledger.store import ChampionMoved
        from ..ledger.trailers import describe

        attempts = [
            s for s in self.ledger.attempts() if s.kind == "baseline" and s.score is not None
        ]
        scores = {
            trial.seed: trial.score for s in attempts for trial in s.runs if trial.score is not None
        }
        if trouble := too_noisy(scores.values(), self.rules.max_noise):
            raise InfrastructureFailure(trouble)
        try:
            self.ledger.promote(0, attempts[0].id, self.rules.base_commit, scores)
        except ChampionMoved:
            return
        describe(self.repository, self.ledger)
        self.project()

    # ------------------------------------------------------------------ 7: record

    def settle(self, attempt: WorkingAttempt, trial: Trial, verdict: str, reason: str) -> Attempt:
        """Write the verdict: commit object, one transaction, then refs as its projection.

        Raises:
            ledger.ChampionMoved: A keep, and another mutation was kept since the bar was read.
        """
        if attempt.record.state == "done":
            return attempt.record
        # like the gain, over the champion, whatever it was built on
        before = self.runner.read(attempt.champion.commit) if attempt.champion else attempt.before
        added, removed = changed_lines(before, attempt.files) if attempt.files else (0, 0)
        decision = attempt.decision
        outcome: dict[str, Any] = {
            "verdict": verdict,
            "reason": reason,
            "score": trial.value,
            "n": len(attempt.scores) or (1 if trial.value is not None else 0),
            "bar": decision.bar if decision else None,
            "gain": decision.gain if decision else None,
            "gain_sigma": decision.gain_sigma if decision else None,
            "fingerprint": attempt.fingerprint,
            "lines_added": added,
            "lines_removed": removed,
            "parent": attempt.parent.id if attempt.parent else None,
            "champion_before": attempt.champion.attempt_id if attempt.champion else None,
        }
        if verdict == "guard" and attempt.scores:
            outcome["score"] = fmean(attempt.scores.values())
        commit = outcome["commit"] = self._commit(attempt, trial, verdict, reason, outcome)
        if verdict == "keep":
            assert attempt.champion is not None
            self.ledger.promote(
                attempt.champion.version, attempt.record.id, commit, attempt.scores, outcome=outcome
            )
        else:
            self.ledger.finish_attempt(attempt.record.id, **outcome)
        self.project()
        record = self.ledger.attempt(attempt.record.id)
        if verdict not in ("keep", "baseline"):
            self._tidy(record)
        return record

    def _tidy(self, record: Attempt) -> None:
        """Remove the run directories of what was not kept; weights would fill the disk."""
        for trial in record.runs:
            if trial.checkpoint is not None:
                shutil.rmtree(trial.checkpoint.parent, ignore_errors=True)

    def requeue(self, attempt: WorkingAttempt, state: str, reason: str) -> None:
        """End an attempt without a verdict; its proposal waits for the next attempt."""
        self.ledger.abandon_attempt(attempt.record.id, state, reason)

    def _commit(
        self,
        attempt: WorkingAttempt,
        trial: Trial,
        verdict: str,
        reason: str,
        outcome: Mapping[str, object],
    ) -> str:
        from ..ledger.trailers import of_attempt

        if not attempt.files or attempt.proposal is None:
            return self.rules.base_commit if attempt.record.kind == "baseline" else ""
        metric = self.experiment.metric
        lines = []
        if trial.value is not None:
            lines.append(f"{metric.name} {trial.value:.6f} over {len(attempt.scores)} seed(s)")
        if attempt.decision is not None:
            lines.append(attempt.decision.explanation)
        if reason and verdict != "keep":
            lines.append(reason)
        if attempt.proposal.hypothesis:
            lines += ["", attempt.proposal.hypothesis]
        if below := self._below(attempt):
            lines += ["", built_on(below)]
        parent = (
            attempt.champion.commit
            if verdict == "keep" and attempt.champion
            else attempt.parent_commit
        )
        return self.repository.commit(
            parent,
            attempt.files,
            subject=attempt.proposal.title or attempt.name,
            body="\n".join(lines),
            trailers={
                "Attempt": attempt.name,
                "Verdict": verdict,
                "Metric": f"{metric.name} {metric.direction}",
                "Score": "" if trial.value is None else repr(trial.value),
                "Seeds": " ".join(f"{seed}={score!r}" for seed, score in attempt.scores.items()),
                "Parent": attempt.parent_commit,
                "Proposer": attempt.proposal.proposer,
                "Data": self._data_hash(),
                "Ledger-Row": str(attempt.record.id),
                **of_attempt(self.ledger, attempt.record.id, outcome, attempt.champion),
            },
        )

    def _below(self, attempt: WorkingAttempt) -> list[Attempt]:
        """Return the discards that a mutation was built on and has in it."""
        made = {champion.attempt_id for champion in self.ledger.champions()}
        if attempt.parent is None or attempt.parent.id in made:
            return []
        by_id = {record.id: record for record in self.ledger.attempts()}
        return stack(attempt.parent, by_id, made)

    def _data_hash(self) -> str:
        return str(self.ledger.meta("data_sha256") or "")

    def project(self) -> None:
        """Make refs say what the ledger says; repeatable at any time."""
        from ..ledger.trailers import ANCHOR

        champion = self.ledger.champion()
        if champion is None:
            return
        tried = {
            s.name: s.commit for s in self.ledger.attempts() if s.kind != "baseline" and s.commit
        }
        if anchor := self.ledger.meta("anchor"):
            tried[ANCHOR] = anchor
        self.repository.project(self.rules.tag, champion.commit, tried)

    def close(self) -> None:
        """Stop trials and helpers; a draft that is finished waits in the ledger."""
        self._draft.give_up()
        if self._proposer is not None:
            self._proposer.close()


def _signed(proposal: Proposal, program: str, ours: Proposal | None = None) -> Proposal:
    """Note the brief of a proposal, and drop the origin of any that is not the harness's own."""
    brief = {"brief": hashlib.sha256(program.encode()).hexdigest()[:8]}
    origin = ours.origin if ours is not None else None
    return replace(proposal, meta={**proposal.meta, **brief}, origin=origin)
