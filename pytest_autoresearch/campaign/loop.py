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
from ..core.records import GateNote
from ..judge.parents import Course, built_on, course, stack
from ..proposers.draft import Draft
from ..source.edits import apply, changed_lines
from .attempt import Slot
from .context import Briefing
from .measure import Measurement
from .pause import LONGEST_S, Night

if TYPE_CHECKING:
    from ..core.records import Champion, SlotRecord
    from ..judge.verdicts import Judge
    from .runs import Trials

NEAR = 0.05
"""Share by which numbers may differ in a near duplicate, which is noted and not refused."""

BACKOFF_S, LONGEST_BACKOFF_S = 1.0, 600.0
"""Least seconds of a slot's first pause for a provider that is away; doubles up to the second."""

RETRY_S = (10.0, 60.0)
"""Seconds before a mutation is trained again, in the same slot, that the infrastructure failed."""

NEAR_LOOK_BACK = 200
"""Slots that are searched for near duplicates."""


class Campaign:
    """One process's hands on a campaign; the ledger is what all of them share.

    Attributes:
        trials: Runs them, and knows the champion.
        measurement: Makes a score and a bar of them.
    """

    def __init__(
        self,
        *,
        trials: Trials,
        judge: Judge,
        proposer: Callable[[], Proposer],
        session_id: int,
        worker: str,
        night: Night | None = None,
    ) -> None:
        self.trials = trials
        self.measurement = Measurement(trials, judge)
        self.root, self.experiment, self.rules = trials.root, trials.experiment, trials.rules
        self.ledger, self.repository = trials.ledger, trials.repository
        self.session_id = session_id
        self.worker = worker
        self.night = night or Night()
        self._make_proposer = proposer
        self._proposer: Proposer | None = None
        self._draft = Draft(self.ledger.drop_draft)
        self._briefing = Briefing(trials, self.night.say)

    # ------------------------------------------------------------------ 1-2: propose and mutate

    def begin(self, name: str, kind: str, number: int) -> Slot:
        """Open the slot's ledger row; a mutation first waits for the baseline."""
        from ..ledger.store import SlotTaken

        if kind != "baseline":
            self.calibrated()
        while True:
            try:
                return Slot(
                    self.ledger.start_slot(
                        session_id=self.session_id,
                        worker=self.worker,
                        name=name,
                        kind=kind,
                        number=number,
                    )
                )
            except SlotTaken as taken:
                if taken.record.state == "done":
                    return Slot(taken.record)
                self.trials.wait(f"while {name} was measured by another worker")

    def propose(self, slot: Slot) -> Slot:
        """Fill the slot with a proposal and apply its edits to the champion's files.

        A proposal that an interrupted slot gave back comes before a new one, and one that was
        drafted while the last trial ran before one that must be waited for. A provider that is
        away is asked again, as long as the night lasts, and at most for `LONGEST_S`.

        Raises:
            ProposerUnavailable: Infrastructure; the slot is not charged.
            ProposerExhausted: Nothing is left to propose, or the night is over.
        """
        waited, backoff = 0.0, BACKOFF_S
        while True:
            try:
                return self._propose(slot)
            except (ProposerUnavailable, ProposerExhausted) as error:
                if error.usage not in (None, Usage()):
                    self.ledger.charge(slot.record.id, error.usage)
                again = error.again_s if isinstance(error, ProposerUnavailable) else None
                seconds = max(backoff, again or 0.0)
                if again is None or waited + seconds > LONGEST_S:
                    raise
                self.night.pause(seconds, str(error))
            waited, backoff = waited + seconds, min(2 * backoff, LONGEST_BACKOFF_S)

    def _propose(self, slot: Slot) -> Slot:
        """Try once to fill the slot."""
        slot.champion = self.trials.champion()
        own = getattr(self.proposer, "insists", False)
        course = self._course(slot.record.number)
        slot.parent = self.ledger.slot(course.parent)
        slot.parent_commit = slot.parent.commit
        slot.before = self.trials.read(slot.parent.commit)
        waiting = None if own else self.ledger.lease_proposal(slot.record.id)
        made_for: int | None = slot.parent.id
        program = self._briefing.program()
        try:
            if waiting is not None:
                slot.proposal, made_for = waiting
            elif course.proposal is not None:
                slot.proposal = course.proposal
            else:
                slot.proposal, made_for = self._draft.take(program) or (
                    self.proposer.propose(self._briefing.context(slot, course.hint)),
                    made_for,
                )
        except ProposalRefused as error:
            slot.refusal = NoScore("invalid", f"the model declined: {error}")
            slot.proposal = Proposal(
                "refused", (), proposer=self.proposer.name, usage=error.usage or Usage()
            )
        except ProposalInvalid as error:
            slot.refusal = NoScore("invalid", str(error))
            slot.proposal = Proposal(
                error.title or "unusable proposal",
                (),
                proposer=self.proposer.name,
                usage=error.usage or Usage(),
                meta=error.meta,
            )
        if made_for not in (None, slot.parent.id):
            # thought of for other files than the policy chose: those, while the champion is the
            # same; else the new champion's, or else those
            made = self.ledger.slot(made_for)
            current = made.champion_before == slot.champion.slot_id and made.commit
            slot.parent = made if current else self.ledger.slot(slot.champion.slot_id)
            slot.parent_commit = slot.parent.commit
            slot.before = self.trials.read(slot.parent_commit)
        if waiting is None:
            slot.proposal = _signed(slot.proposal, program)
            self.ledger.save_proposal(slot.record.id, slot.proposal, parent=slot.parent.id)
        if slot.refusal is None:
            self._mutate(slot, made_for)
        return slot

    def adopt(self, slot: Slot, proposal: Proposal) -> None:
        """Fill a slot with a given proposal for the champion's files."""
        slot.champion = self.trials.champion()
        slot.parent = self.ledger.slot(slot.champion.slot_id)
        slot.parent_commit = slot.champion.commit
        slot.before = self.trials.read(slot.champion.commit)
        slot.proposal = proposal
        self.ledger.save_proposal(slot.record.id, proposal, parent=slot.parent.id)
        self._mutate(slot, None)

    def _course(self, number: int) -> Course:
        """Whose files are changed, and whether an old idea comes first."""
        recorded = getattr(self.proposer, "recorded", False)  # is mixed with nothing else
        champion = self.trials.read(self.trials.champion().commit)

        def applies(edits: Sequence[Edit]) -> bool:
            try:
                return apply(champion, edits) != champion
            except EditError:
                return False

        return course(
            "greedy" if recorded else self.rules.policy,
            self.ledger.slots(),
            self.ledger.champions(),
            number,
            self.rules.seed,
            applies,
        )

    def _mutate(self, slot: Slot, made_for: int | None) -> None:
        """Apply the edits to the champion, or else to the files that they were made for."""
        assert slot.proposal is not None
        assert slot.parent is not None
        try:
            slot.files = apply(slot.before, slot.proposal.edits)
            return
        except EditError as error:
            refusal = NoScore("invalid", str(error))
        if made_for is not None and made_for != slot.parent.id:
            parent = self.ledger.slot(made_for)
            before = self.trials.read(parent.commit)
            try:
                slot.files = apply(before, slot.proposal.edits)
            except EditError as error:
                refusal = NoScore("invalid", str(error))
            else:
                slot.parent, slot.parent_commit, slot.before = parent, parent.commit, before
                return
        slot.refusal = refusal

    def draft_ahead(self, slot: Slot) -> None:
        """Have the next proposal thought of while this slot trains, if thinking takes long.

        Not where one waits that was given back: it comes first.
        """
        if not getattr(self.proposer, "thinks", False) or self._draft.begun:
            return
        if self.ledger.proposal_waits(slot.record.id):
            return
        number = slot.record.number + self.rules.concurrency
        course = self._course(number)
        parent = self.ledger.slot(course.parent)
        ahead = Slot(
            replace(slot.record, number=number), parent, before=self.trials.read(parent.commit)
        )
        context, during = self._briefing.context(ahead, course.hint), slot.record.id
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

    def gate(self, slot: Slot) -> None:
        """Run every check that costs no training; the first that fails refuses the slot."""
        from ..source.checks import run_gates
        from ..source.fingerprint import fingerprint

        if slot.refusal is not None or slot.proposal is None:
            return
        slot.fingerprint = fingerprint(slot.files)
        notes = run_gates(slot.before, slot.files)
        self.ledger.note_gates(slot.record.id, notes)
        if not notes[-1].ok:
            slot.refusal = NoScore("invalid", notes[-1].detail)
            return
        if near := self._near_duplicate(slot):
            self.ledger.note_gates(slot.record.id, [near])
        earlier = self.ledger.claim_fingerprint(slot.record.id, slot.fingerprint)
        if earlier is not None:
            known = earlier.verdict or "still running"
            score = f" at {earlier.score:.6f}" if earlier.score is not None else ""
            slot.refusal = NoScore(
                "duplicate", f"same code as {earlier.name} ({earlier.title}): {known}{score}"
            )

    def _near_duplicate(self, slot: Slot) -> GateNote | None:
        """Note what differs from an earlier mutation in slightly other numbers only."""
        from ..source.fingerprint import shape

        started, this = time.perf_counter(), shape(slot.files)
        for record in reversed(self.ledger.slots()[-NEAR_LOOK_BACK:]):
            if record.id == slot.record.id or not record.commit or record.kind == "baseline":
                continue
            if this.close_to(self.trials.shape(record.commit), NEAR):
                detail = f"nearly {record.name} ({record.title}): {record.verdict}"
                return GateNote("near duplicate", True, detail, time.perf_counter() - started)
        return None

    # ------------------------------------------------------------------ 4-6: measure

    def measure(self, slot: Slot) -> Trial:
        """Measure it; a trial of a mutation that the infrastructure failed is not the last one.

        Raises:
            InfrastructureFailure: It failed each time.
        """
        for seconds in RETRY_S if slot.record.kind == "mutation" else ():
            try:
                return self.measurement.measure(slot)
            except InfrastructureFailure as error:
                last = self.ledger.slot(slot.record.id).trials[-1:]
                if not last or last[0].status != "infra":
                    raise  # the champion's fault, say: it would be again
                try:
                    self.night.pause(seconds, f"{slot.name}: {error}; it is tried again")
                except ProposerExhausted:
                    raise error from None
            slot.scores.clear()
        return self.measurement.measure(slot)

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
                self._crown_baseline()
                continue
            busy = {
                s.number
                for s in self.ledger.slots()
                if s.kind == "baseline" and s.state == "running"
            }
            free = [number for number in missing if number not in busy]
            if free:
                self.fill_baseline(free[0])
            else:
                self.trials.wait("while waiting for the baseline")

    def missing_baselines(self) -> list[int]:
        """Numbers of the calibration slots without a score."""
        done = {
            s.number for s in self.ledger.slots() if s.kind == "baseline" and s.score is not None
        }
        return [n for n in range(1, self.rules.calibrate + 1) if n not in done]

    def fill_baseline(self, number: int) -> Trial:
        """Measure one calibration seed as a slot of its own."""
        slot = self.begin(f"baseline-{number}", "baseline", number)
        trial = self.measurement.measure(slot)
        self.settle(
            slot, trial, "baseline" if trial.value is not None else trial.verdict, trial.reason
        )
        if trial.value is None:
            raise InfrastructureFailure(
                f"the baseline itself failed ({trial.verdict}): {trial.reason}; "
                f"mend {self.experiment.files[0]} first"
            )
        return trial

    def _crown_baseline(self) -> None:
        from ..judge.verdicts import too_noisy
        from ..ledger.store import ChampionMoved
        from ..ledger.trailers import describe

        slots = [s for s in self.ledger.slots() if s.kind == "baseline" and s.score is not None]
        scores = {
            trial.seed: trial.score for s in slots for trial in s.trials if trial.score is not None
        }
        if trouble := too_noisy(scores.values(), self.rules.max_noise):
            raise InfrastructureFailure(trouble)
        try:
            self.ledger.crown(0, slots[0].id, self.rules.base_commit, scores)
        except ChampionMoved:
            return
        describe(self.repository, self.ledger)
        self.project()

    # ------------------------------------------------------------------ 7: record

    def settle(self, slot: Slot, trial: Trial, verdict: str, reason: str) -> SlotRecord:
        """Write the verdict: commit object, one transaction, then refs as its projection.

        Raises:
            ledger.ChampionMoved: A keep, and another mutation was kept since the bar was read.
        """
        if slot.record.state == "done":
            return slot.record
        # like the gain, over the champion, whatever it was built on
        before = self.trials.read(slot.champion.commit) if slot.champion else slot.before
        added, removed = changed_lines(before, slot.files) if slot.files else (0, 0)
        decision = slot.decision
        outcome: dict[str, Any] = {
            "verdict": verdict,
            "reason": reason,
            "score": trial.value,
            "n": len(slot.scores) or (1 if trial.value is not None else 0),
            "bar": decision.bar if decision else None,
            "gain": decision.gain if decision else None,
            "gain_sigma": decision.gain_sigma if decision else None,
            "fingerprint": slot.fingerprint,
            "lines_added": added,
            "lines_removed": removed,
            "parent": slot.parent.id if slot.parent else None,
            "champion_before": slot.champion.slot_id if slot.champion else None,
        }
        if verdict == "guard" and slot.scores:
            outcome["score"] = fmean(slot.scores.values())
        commit = outcome["commit"] = self._commit(slot, trial, verdict, reason, outcome)
        if verdict == "keep":
            assert slot.champion is not None
            self.ledger.crown(
                slot.champion.version, slot.record.id, commit, slot.scores, outcome=outcome
            )
        else:
            self.ledger.finish_slot(slot.record.id, **outcome)
        self.project()
        record = self.ledger.slot(slot.record.id)
        if verdict not in ("keep", "baseline"):
            self._tidy(record)
        return record

    def _tidy(self, record: SlotRecord) -> None:
        """Remove the run directories of what was not kept; weights would fill the disk."""
        for trial in record.trials:
            if trial.checkpoint is not None:
                shutil.rmtree(trial.checkpoint.parent, ignore_errors=True)

    def give_back(self, slot: Slot, state: str, reason: str) -> None:
        """End a slot without a verdict; its proposal waits for the next slot."""
        self.ledger.abandon_slot(slot.record.id, state, reason)

    def _commit(
        self, slot: Slot, trial: Trial, verdict: str, reason: str, outcome: Mapping[str, object]
    ) -> str:
        from ..ledger.trailers import of_slot

        if not slot.files or slot.proposal is None:
            return self.rules.base_commit if slot.record.kind == "baseline" else ""
        metric = self.experiment.metric
        lines = []
        if trial.value is not None:
            lines.append(f"{metric.name} {trial.value:.6f} over {len(slot.scores)} seed(s)")
        if slot.decision is not None:
            lines.append(slot.decision.explanation)
        if reason and verdict != "keep":
            lines.append(reason)
        if slot.proposal.hypothesis:
            lines += ["", slot.proposal.hypothesis]
        if below := self._below(slot):
            lines += ["", built_on(below)]
        parent = slot.champion.commit if verdict == "keep" and slot.champion else slot.parent_commit
        return self.repository.commit(
            parent,
            slot.files,
            subject=slot.proposal.title or slot.name,
            body="\n".join(lines),
            trailers={
                "Slot": slot.name,
                "Verdict": verdict,
                "Metric": f"{metric.name} {metric.direction}",
                "Score": "" if trial.value is None else repr(trial.value),
                "Seeds": " ".join(f"{seed}={score!r}" for seed, score in slot.scores.items()),
                "Parent": slot.parent_commit,
                "Proposer": slot.proposal.proposer,
                "Data": self._data_hash(),
                "Ledger-Row": str(slot.record.id),
                **of_slot(self.ledger, slot.record.id, outcome, slot.champion),
            },
        )

    def _below(self, slot: Slot) -> list[SlotRecord]:
        """Return the discards that a mutation was built on and has in it."""
        made = {champion.slot_id for champion in self.ledger.champions()}
        if slot.parent is None or slot.parent.id in made:
            return []
        by_id = {record.id: record for record in self.ledger.slots()}
        return stack(slot.parent, by_id, made)

    def _data_hash(self) -> str:
        return str(self.ledger.meta("data_sha256") or "")

    def project(self) -> None:
        """Make refs say what the ledger says; repeatable at any time."""
        from ..ledger.trailers import ANCHOR

        champion = self.ledger.champion()
        if champion is None:
            return
        tried = {s.name: s.commit for s in self.ledger.slots() if s.kind != "baseline" and s.commit}
        if anchor := self.ledger.meta("anchor"):
            tried[ANCHOR] = anchor
        self.repository.project(self.rules.tag, champion.commit, tried)

    def close(self) -> None:
        """Stop trials and helpers; a draft that is finished waits in the ledger."""
        self._draft.give_up()
        try:
            if self._proposer is not None:
                self._proposer.close()
        finally:
            self.trials.executor.close()


def _signed(proposal: Proposal, program: str) -> Proposal:
    """Note which brief a proposal was made from."""
    brief = {"brief": hashlib.sha256(program.encode()).hexdigest()[:8]}
    return replace(proposal, meta={**proposal.meta, **brief})
