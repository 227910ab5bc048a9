"""The one step of research, in order: propose, mutate, gate, trial, score, judge, record.

The only place that knows the order. Every step is addressed by a ledger row, so a step that was
cut off is found again by the next session.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import TYPE_CHECKING, Any

from .experiment import Budget, Experiment
from .mutation import Edit, EditError, apply, changed_lines
from .outcome import NoScore, Score, Trial
from .policy import Course, Policy, course
from .proposers import (
    Attempt,
    Context,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    Proposer,
    Usage,
)
from .proposers.draft import Draft
from .records import PRUNE, SMOKE, GateNote

if TYPE_CHECKING:
    from .devices import Device
    from .executors import TrialExecutor
    from .fingerprint import Shape
    from .judge import Decision, Judge, Noise
    from .ledger import Ledger
    from .records import Champion, SlotRecord, TrialRecord
    from .repository import Repository
    from .trial import TrialResult, TrialSpec

AUDIT_KEEP = 2048
"""Positions audited before a keep; every trial has 512."""

NEAR = 0.05
"""Share by which numbers may differ in a near duplicate, which is noted and not refused."""

NEAR_LOOK_BACK = 200
"""Slots that are searched for near duplicates."""

DOWNSTREAM_EVERY = 10
"""Every how many slots the downstream task is run, besides on every keep."""

MEMORY_SHARE = 0.9
"""Share of the memory that the trials of this machine may take together."""

TICK_S = 0.25
"""How often a waiting step looks at the stop flag and at the ledger."""


class InfrastructureFailure(Exception):
    """Not the mutation's doing (no device, disk full, API down): never a verdict."""


class Interrupted(Exception):
    """The session was asked to stop while a trial ran; the proposal is given back."""


@dataclass
class Slot:
    """A slot while it is being filled.

    Attributes:
        record: Its row as it was when the slot began.
        parent: The slot whose files the edits apply to; None for a baseline.
        parent_commit: Commit of those files.
        files: The resulting editable files, once the edits applied.
        before: The parent's editable files.
        proposal: What was proposed.
        refusal: Why nothing can be trained, if so.
        scores: Seed to score, of every replicate so far.
        decision: The judge's last word.
        champion: The champion that `decision` compared with.
    """

    record: SlotRecord
    parent: SlotRecord | None = None
    parent_commit: str = ""
    files: dict[str, str] = field(default_factory=dict)
    before: dict[str, str] = field(default_factory=dict)
    proposal: Proposal | None = None
    refusal: NoScore | None = None
    scores: dict[int, float] = field(default_factory=dict)
    decision: Decision | None = None
    champion: Champion | None = None
    fingerprint: str = ""

    @property
    def name(self) -> str:
        """Item name, e.g. ``mutation-0007``."""
        return self.record.name


@dataclass(frozen=True)
class Rules:
    """What a campaign was started with and keeps for its life.

    Attributes:
        tag: Name of the campaign.
        base_commit: Commit whose files are the baseline.
        budget: Training budget of every trial.
        seed: Campaign seed.
        calibrate: Seeds of the baseline.
        sandbox: Mode of confinement.
        threads: CPU threads of a trial.
        concurrency: Trials that run side by side on this machine.
        policy: Whose files the next mutation changes.
        max_noise: Spread of the baseline above which nothing can be judged, as a share of it.
    """

    tag: str
    base_commit: str
    budget: Budget
    seed: int
    calibrate: int
    sandbox: str
    threads: int
    concurrency: int = 1
    policy: Policy = "greedy"
    max_noise: float = 1.0


class Campaign:
    """One process's hands on a campaign; the ledger is what all of them share."""

    def __init__(
        self,
        *,
        root: Path,
        experiment: Experiment,
        rules: Rules,
        ledger: Ledger,
        repository: Repository,
        session_id: int,
        worker: str,
        device: Device,
        executor: TrialExecutor,
        proposer: Callable[[], Proposer],
        judge: Judge,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.root = root
        self.experiment = experiment
        self.rules = rules
        self.ledger = ledger
        self.repository = repository
        self.session_id = session_id
        self.worker = worker
        self.device = device
        self.executor = executor
        self.judge = judge
        self._make_proposer = proposer
        self._proposer: Proposer | None = None
        self._draft = Draft()
        self._shapes: dict[str, Shape] = {}
        self.running: tuple[Slot, str] | None = None
        self._should_stop = should_stop

    # ------------------------------------------------------------------ 1-2: propose and mutate

    def begin(self, name: str, kind: str, number: int) -> Slot:
        """Open the slot's ledger row; a mutation first waits for the baseline."""
        from .ledger import SlotTaken

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
                self._wait(f"while {name} was measured by another worker")

    def _wait(self, what: str) -> None:
        if self._should_stop():
            raise Interrupted(f"stopped {what}")
        time.sleep(TICK_S)
        self.ledger.recover()

    def propose(self, slot: Slot) -> Slot:
        """Fill the slot with a proposal and apply its edits to the champion's files.

        A proposal that an interrupted slot gave back comes before a new one, and one that was
        drafted while the last trial ran before one that must be waited for.

        Raises:
            ProposerUnavailable: Infrastructure; the slot is not charged.
            ProposerExhausted: Nothing is left to propose.
        """
        slot.champion = self.champion()
        own = getattr(self.proposer, "insists", False)
        course = self._course(slot.record.number)
        slot.parent = self.ledger.slot(course.parent)
        slot.parent_commit = slot.parent.commit
        slot.before = self.read(slot.parent.commit)
        waiting = None if own else self.ledger.lease_proposal(slot.record.id)
        made_for: int | None = slot.parent.id
        try:
            if waiting is not None:
                slot.proposal, made_for = waiting
            elif course.proposal is not None:
                slot.proposal = course.proposal
            else:
                slot.proposal, made_for = self._draft.take() or (
                    self.proposer.propose(self.context(slot, course.hint)),
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
        if waiting is None:
            self.ledger.save_proposal(slot.record.id, slot.proposal, parent=slot.parent.id)
        if slot.refusal is None:
            self._mutate(slot, made_for)
        return slot

    def adopt(self, slot: Slot, proposal: Proposal) -> None:
        """Fill a slot with a given proposal for the champion's files."""
        slot.champion = self.champion()
        slot.parent = self.ledger.slot(slot.champion.slot_id)
        slot.parent_commit = slot.champion.commit
        slot.before = self.read(slot.champion.commit)
        slot.proposal = proposal
        self.ledger.save_proposal(slot.record.id, proposal, parent=slot.parent.id)
        self._mutate(slot, None)

    def _course(self, number: int) -> Course:
        """Whose files are changed, and whether an old idea comes first; recordings go straight."""
        straight = getattr(self.proposer, "recorded", False)
        champion = self.read(self.champion().commit)

        def applies(edits: Sequence[Edit]) -> bool:
            try:
                return apply(champion, edits) != champion
            except EditError:
                return False

        return course(
            "greedy" if straight else self.rules.policy,
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
            before = self.read(parent.commit)
            try:
                slot.files = apply(before, slot.proposal.edits)
            except EditError as error:
                refusal = NoScore("invalid", str(error))
            else:
                slot.parent, slot.parent_commit, slot.before = parent, parent.commit, before
                return
        slot.refusal = refusal

    def draft_ahead(self, slot: Slot) -> None:
        """Have the next proposal thought of while this slot trains, if thinking takes long."""
        if not getattr(self.proposer, "thinks", False) or slot.parent is None:
            return
        context = replace(self.context(slot), slot=slot.record.number + self.rules.concurrency)
        self._draft.start(self.proposer, context)

    @property
    def proposer(self) -> Proposer:
        """The proposer, created when first needed."""
        if self._proposer is None:
            self._proposer = self._make_proposer()
        return self._proposer

    def context(self, slot: Slot, hint: str = "") -> Context:
        """Everything the proposer may know; holdout scores are not in the rows it is made of."""
        history = self.history()
        assert slot.parent is not None
        by_id = {attempt.slot_id: attempt for attempt in history}
        champion = by_id[self.champion().slot_id]
        fixed = [name for name in self.experiment.context if (self.root / name).is_file()]
        last = slot.parent.own_trials[-1] if slot.parent.own_trials else None
        return Context(
            experiment=self.experiment,
            program=(self.root / self.experiment.program).read_text(encoding="utf-8"),
            slot=slot.record.number,
            seed=self.rules.seed,
            parent=by_id[slot.parent.id],
            files=slot.before,
            fixed_files=self.repository.read(self.rules.base_commit, fixed),
            history=history,
            champion=champion,
            sigma=self.noise().sigma,
            figures=_figures(last) if last else {},
            log_tail=last.log_tail if last else "",
            hint=hint,
        )

    def history(self) -> list[Attempt]:
        """Every slot of the campaign as a proposer sees it, oldest first."""
        return [self._attempt(record) for record in self.ledger.slots()]

    def _attempt(self, record: SlotRecord) -> Attempt:
        return Attempt(
            slot_id=record.id,
            name=record.name,
            parent=record.parent,
            title=record.title,
            hypothesis=record.hypothesis,
            proposer=record.proposer,
            verdict=record.verdict or ("running" if record.state == "running" else record.state),
            reason=record.reason,
            score=record.score,
            gain=record.gain,
            gain_sigma=record.gain_sigma,
            lines_added=record.lines_added,
            lines_removed=record.lines_removed,
            meta=record.meta,
            read_files=partial(self._files_of, record),
        )

    def _files_of(self, record: SlotRecord) -> Mapping[str, str]:
        if record.commit:
            return self.read(record.commit)
        parent = self.ledger.slot(record.parent) if record.parent else None
        return apply(self.read(parent.commit if parent else self.rules.base_commit), record.edits)

    def read(self, commit: str) -> dict[str, str]:
        """Return the editable files of `commit`."""
        return self.repository.read(commit, self.experiment.files)

    # ------------------------------------------------------------------ 3: gate

    def gate(self, slot: Slot) -> None:
        """Run every check that costs no training; the first that fails refuses the slot."""
        from .fingerprint import fingerprint
        from .gates import run_gates

        if slot.refusal is not None or slot.proposal is None:
            return
        slot.fingerprint = fingerprint(slot.files)
        notes = run_gates(slot.before, slot.files)
        self.ledger.note_gates(slot.record.id, notes)
        if not notes[-1].ok:
            slot.refusal = NoScore("invalid", notes[-1].detail)
            return
        if near := self._near_duplicate(slot):
            self._note(slot, near)
        earlier = self.ledger.claim_fingerprint(slot.record.id, slot.fingerprint)
        if earlier is not None:
            known = earlier.verdict or "still running"
            score = f" at {earlier.score:.6f}" if earlier.score is not None else ""
            slot.refusal = NoScore(
                "duplicate", f"same code as {earlier.name} ({earlier.title}): {known}{score}"
            )

    def _near_duplicate(self, slot: Slot) -> GateNote | None:
        """Note what differs from an earlier mutation in slightly other numbers only."""
        from .fingerprint import shape

        started, this = time.perf_counter(), shape(slot.files)
        for record in reversed(self.ledger.slots()[-NEAR_LOOK_BACK:]):
            if record.id == slot.record.id or not record.commit or record.kind == "baseline":
                continue
            if this.close_to(self._shape(record.commit), NEAR):
                detail = f"nearly {record.name} ({record.title}): {record.verdict}"
                return GateNote("near duplicate", True, detail, time.perf_counter() - started)
        return None

    def _shape(self, commit: str) -> Shape:
        from .fingerprint import shape

        if commit not in self._shapes:
            self._shapes[commit] = shape(self.read(commit))
        return self._shapes[commit]

    # ------------------------------------------------------------------ 4-6: trial, score, judge

    def measure(self, slot: Slot) -> Trial:
        """Train, score and replicate as far as the judge asks; never raises for the candidate."""
        slot_id, metric = slot.record.id, self.experiment.metric
        if slot.refusal is not None:
            return self._failed(slot)
        if slot.record.state == "done":
            return Trial(metric, slot_id, slot.record.score)
        if slot.record.kind == "baseline":
            seed = self.baseline_seeds()[slot.record.number - 1]
            result = self.run(slot, self.read(self.rules.base_commit), seed, "calibrate")
            return Trial(metric, slot_id, result.score, _verdict_of(result), result.reason)
        champion = self.champion()
        seed = sorted(champion.scores)[slot.record.number % len(champion.scores)]
        if not self._smoke(slot, seed):
            return self._failed(slot)
        purpose = "first"
        while True:
            curve = self._champion_curve(slot, seed)
            result = self.run(slot, slot.files, seed, purpose, champion_curve=curve)
            if result.score is None:
                slot.refusal = NoScore(_verdict_of(result), result.reason)
                return self._failed(slot)
            slot.scores[seed] = result.score
            if not self._guarded(slot, result):
                return self._failed(slot)
            decision = self._decide(slot)
            if decision.action == "keep" and not (
                self._checked(slot) and self._audit(slot) and self._downstream(slot)
            ):
                return self._failed(slot)
            if decision.action != "replicate":
                break
            if decision.remeasure_champion:
                self._measure_champion(slot, decision.seed)
            assert decision.seed is not None
            seed, purpose = decision.seed, "replicate"
        if decision.action != "keep" and slot.record.number % DOWNSTREAM_EVERY == 0:
            self._downstream(slot)
        return Trial(metric, slot_id, sum(slot.scores.values()) / len(slot.scores))

    def _champion_curve(self, slot: Slot, seed: int) -> tuple[tuple[float, float], ...]:
        """The champion's losses on a seed, if the mutation means the same loss.

        Only where nothing but literals differs is that sure; a run that adds a term to its loss
        must not be given up for it.
        """
        from .fingerprint import shape

        champion = self.champion()
        if self._shape(champion.commit).skeleton != shape(slot.files).skeleton:
            return ()
        records = [self.ledger.slot(champion.slot_id)]
        if champion.version == 1:
            records = [record for record in self.ledger.slots() if record.kind == "baseline"]
        for trial in (trial for record in records for trial in record.own_trials):
            if trial.seed == seed and trial.curve:
                return trial.curve
        return ()

    def _smoke(self, slot: Slot, seed: int) -> bool:
        """Two steps, a checkpoint and one scored batch: what is broken costs seconds."""
        if self.experiment.run is not None:
            return True
        result = self.run(slot, slot.files, seed, SMOKE, phase="smoke")
        if result.checkpoint is not None:
            shutil.rmtree(result.checkpoint.parent, ignore_errors=True)
        ok = result.status == "ok"
        self._note(slot, GateNote("smoke", ok, result.reason, result.total_seconds))
        if not ok:
            slot.refusal = NoScore(_verdict_of(result), result.reason)
        return ok

    def _note(self, slot: Slot, *notes: GateNote) -> None:
        gates = [*self.ledger.slot(slot.record.id).gates, *notes]
        self.ledger.note_gates(slot.record.id, gates)

    def _guarded(self, slot: Slot, result: TrialResult) -> bool:
        """Hold a trial against the bounds on what a gain may cost."""
        from . import guards
        from .trial.rescore import CLOZE

        baseline = self._calibration()
        bounds = guards.built_in(self.experiment, self.rules.budget.kind == "wall", baseline)
        own = [guard for guard in self.experiment.guards if guard.metric != CLOZE]
        notes = guards.check(result, baseline, [*bounds, *own])
        if len(slot.scores) == 1:
            self._note(slot, *notes)
        broken = [note.detail for note in notes if not note.ok]
        if broken:
            slot.refusal = NoScore("guard", "; ".join(broken))
        return not broken

    def _checked(self, slot: Slot) -> bool:
        """Run the user's checks in the mutated copy of the whole project."""
        if self.experiment.checks is None:
            return True
        copy = dict(self.repository.export(slot.parent_commit))
        copy.update({name: text.encode() for name, text in slot.files.items()})
        result = self.run(
            slot,
            slot.files,
            next(iter(slot.scores)),
            "check",
            phase="check",
            files=copy,
            command=("sh", "-c", self.experiment.checks),
        )
        ok = result.status == "ok"
        self._note(slot, GateNote("checks", ok, result.reason, result.total_seconds))
        if not ok:
            slot.refusal = NoScore(_verdict_of(result), f"the experiment's checks: {result.reason}")
        return ok

    def _audit(self, slot: Slot) -> bool:
        """Audit every replicate's claims again, at many more places, before it may be kept."""
        if self.experiment.run is not None:
            return True
        for trial in self.ledger.slot(slot.record.id).own_trials:
            if trial.checkpoint is None:
                continue
            deeper = {
                "phase": "audit",
                "audit": AUDIT_KEEP,
                "trial_id": trial.checkpoint.parent.name,
            }
            result = self.run(slot, slot.files, trial.seed, "audit", **deeper)
            if result.score is None:
                slot.refusal = NoScore(_verdict_of(result), result.reason)
                return False
        return True

    def _downstream(self, slot: Slot) -> bool:
        """Look at what the model can do besides its score; a guard may bound it."""
        from .guards import check
        from .trial.rescore import CLOZE

        saved = [t for t in self.ledger.slot(slot.record.id).own_trials if t.checkpoint is not None]
        if self.experiment.run is not None or not saved:
            return True
        assert saved[0].checkpoint is not None
        name = saved[0].checkpoint.parent.name
        result = self.run(
            slot, slot.files, saved[0].seed, "downstream", phase="downstream", trial_id=name
        )
        if result.status != "ok" or CLOZE not in result.metrics:
            return True
        bounds = [guard for guard in self.experiment.guards if guard.metric == CLOZE]
        notes = check(result, (), bounds) or [
            GateNote("downstream", True, f"{CLOZE} {result.metrics[CLOZE]:.4f}")
        ]
        self._note(slot, *(replace(note, seconds=result.total_seconds) for note in notes))
        broken = [note.detail for note in notes if not note.ok]
        if broken:
            slot.refusal = NoScore("guard", "; ".join(broken))
        return not broken

    def verify(self, record: SlotRecord) -> list[tuple[int, float | None, TrialResult]]:
        """Score a slot's commit once more: from its checkpoints, or by training it again.

        Args:
            record: The slot; it must have a commit.

        Returns:
            For each of its replicates: seed, score then, and result now.
        """
        slot = Slot(record, parent_commit=record.commit)
        files = self.read(record.commit)
        found: list[tuple[int, float | None, TrialResult]] = []
        for trial in record.own_trials:
            if trial.score is None:
                continue
            changes: dict[str, Any] = {}
            if trial.checkpoint is not None and trial.checkpoint.is_file():
                name = trial.checkpoint.parent.name
                changes = {"phase": "rescore", "trial_id": name, "audit": AUDIT_KEEP}
            result = self.run(slot, files, trial.seed, "verify", **changes)
            found.append((trial.seed, trial.score, result))
        return found

    def _failed(self, slot: Slot) -> Trial:
        assert slot.refusal is not None
        refusal = slot.refusal
        return Trial(self.experiment.metric, slot.record.id, None, refusal.verdict, refusal.reason)

    def _decide(self, slot: Slot) -> Decision:
        slot.champion = self.champion()
        if not set(slot.scores) & set(slot.champion.scores):
            # another mutation was kept meanwhile, on other seeds: pair it with this one's
            self._measure_champion(slot, next(iter(slot.scores)))
            slot.champion = self.champion()
        slot.decision = self.judge.decide(
            slot.scores,
            slot.champion.scores,
            self.noise(),
            slot.record.number,
            self._is_simpler(slot),
        )
        return slot.decision

    def _is_simpler(self, slot: Slot) -> bool:
        """Whether being equal is enough: less code, or a keep left out."""
        from .fingerprint import complexity

        assert slot.champion is not None
        if slot.record.kind == PRUNE:
            return True
        return complexity(slot.files) < complexity(self.read(slot.champion.commit))

    def bar(self, slot: Slot) -> Score:
        """The number to beat, against the champion as it stands now."""
        direction = self.experiment.metric.direction
        if slot.refusal is not None or not slot.scores:
            champion = self.champion()
            return Score(champion.mean, direction, f"champion's mean of {len(champion.scores)}")
        decision = self._decide(slot)
        return Score(decision.bar, direction, decision.explanation)

    def _measure_champion(self, slot: Slot, seed: int | None) -> None:
        """Train the champion on a seed it lacks, so that the comparison stays paired."""
        champion = self.champion()
        if seed is None or seed in champion.scores:
            return
        result = self.run(slot, self.read(champion.commit), seed, "champion")
        if result.score is not None:
            self.ledger.add_champion_scores(champion.version, {seed: result.score})

    def run(
        self, slot: Slot, code: Mapping[str, str], seed: int, purpose: str, **changes: Any
    ) -> TrialResult:
        """Train and score once; the row is written before and after.

        Args:
            slot: Slot it is done for.
            code: The editable files.
            seed: Of the trial.
            purpose: What it is for.
            changes: Fields of the `TrialSpec` that differ from an ordinary trial's.

        Raises:
            InfrastructureFailure: The trial could not be run.
            Interrupted: The session was asked to stop.
        """
        spec = replace(self._spec(slot, code, seed, purpose), **changes)
        trial_id = self.ledger.start_trial(
            slot.record.id,
            seed=seed,
            purpose=purpose,
            device=self.device.name,
            concurrency=self.rules.concurrency,
            budget=str(spec.budget),
        )
        self.running = (slot, purpose)
        result = self._execute(spec)
        self.ledger.finish_trial(trial_id, result)
        if result.status == "interrupted":
            raise Interrupted(result.reason)
        if result.status == "infra":
            raise InfrastructureFailure(result.reason)
        return result

    def _execute(self, spec: TrialSpec) -> TrialResult:
        """Wait for one trial in this thread, so that Ctrl-C is heard."""
        self.executor.submit(spec)
        try:
            while (finished := self.executor.wait_any(TICK_S)) is None:
                if self._should_stop():
                    self.executor.cancel(spec.trial_id)
        except BaseException:
            self.executor.cancel(spec.trial_id)
            self.executor.wait_any(10.0)
            raise
        return finished.result

    def _spec(self, slot: Slot, files: Mapping[str, str], seed: int, purpose: str) -> TrialSpec:
        from .devices import memory_bytes
        from .trial import TrialSpec

        experiment = self.experiment
        copy = (
            dict(self.repository.export(slot.parent_commit or self.rules.base_commit))
            if (experiment.run)
            else {}
        )
        copy.update({name: text.encode() for name, text in files.items()})
        reference = None
        if self.rules.budget.kind == "equal":
            base = self.read(self.rules.base_commit)
            reference = {name: text.encode() for name, text in base.items()}
        return TrialSpec(
            trial_id=f"{slot.record.id:05d}-{purpose}-{seed}",
            files=copy,
            entry=experiment.files[0],
            seed=seed,
            budget=self.rules.budget,
            data=self.root / experiment.data if experiment.data else None,
            command=experiment.run,
            metric=experiment.metric.name,
            device=self.device.kind,
            threads=self.rules.threads,
            wall_limit_s=self.wall_limit(),
            memory_limit_bytes=int(MEMORY_SHARE * memory_bytes() / self.rules.concurrency),
            startup_limit_s=self._startup_limit(),
            champion_losses=self._champion_losses(),
            scoring_cpu_limit_s=self._scoring_limit(),
            reference_files=reference,
        )

    def _calibration(self) -> Sequence[TrialRecord]:
        return [
            trial
            for trial in self.ledger.trials()
            if trial.purpose == "calibrate" and trial.status == "ok"
        ]

    def wall_limit(self) -> float:
        """Twice the budget and the calibrated start-up; before calibration, generously more.

        Work is done at the machine's pace of the moment, so where the budget is not in seconds
        the baseline's own wall time, tripled for a busier hour, stands for it.
        """
        measured = self._calibration()
        if self.rules.budget.kind == "wall":
            overhead = max((t.total_seconds - t.train_seconds for t in measured), default=300.0)
            return 2 * self.rules.budget.amount + 2 * overhead + 30
        if not measured:
            return 1800.0
        return 3 * max(t.total_seconds for t in measured) + 60

    def _champion_losses(self) -> Path | None:
        """Per-token losses of the champion, which direct half of an audit to suspicious gains."""
        champion = self.ledger.champion()
        if champion is None:
            return None
        trials = self.ledger.slot(champion.slot_id).trials
        kept = [trial.losses for trial in trials if trial.losses is not None]
        return next((path for path in kept if path.is_file()), None)

    def _scoring_limit(self) -> float | None:
        """CPU seconds of scoring: twice what the slowest baseline took, so none trains on there."""
        measured = [trial.evidence.get("scoring_cpu_s") for trial in self._calibration()]
        seconds = [sum(m.values()) if isinstance(m, dict) else m for m in measured if m]
        return 2 * max(seconds) + 5 if seconds else None

    def _startup_limit(self) -> float:
        measured = [t.causes.get("start", 0.0) for t in self._calibration()]
        return max(20.0, 5 * max(measured)) if measured else 120.0

    # ------------------------------------------------------------------ baseline and noise

    def baseline_seeds(self) -> tuple[int, ...]:
        """Seeds of the calibration, the same for every session of the campaign."""
        return tuple(1000 * self.rules.seed + 1 + i for i in range(self.rules.calibrate))

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
                self._wait("while waiting for the baseline")

    def missing_baselines(self) -> list[int]:
        """Numbers of the calibration slots without a score."""
        done = {
            s.number for s in self.ledger.slots() if s.kind == "baseline" and s.score is not None
        }
        return [n for n in range(1, self.rules.calibrate + 1) if n not in done]

    def fill_baseline(self, number: int) -> Trial:
        """Measure one calibration seed as a slot of its own."""
        slot = self.begin(f"baseline-{number}", "baseline", number)
        trial = self.measure(slot)
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
        from .judge import too_noisy
        from .ledger import ChampionMoved

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
        self._describe()
        self.project()

    def _describe(self) -> None:
        """Make the commit that says, to whoever has only the refs, what the campaign is."""
        from .trailers import of_campaign

        anchor = self.repository.commit(
            self.rules.base_commit,
            {},
            subject=f"campaign {self.rules.tag}: baseline",
            body="",
            trailers=of_campaign(self.ledger),
        )
        self.ledger.set_meta("anchor", anchor)

    def champion(self) -> Champion:
        """The champion now.

        Raises:
            InfrastructureFailure: There is none yet.
        """
        champion = self.ledger.champion()
        if champion is None:
            raise InfrastructureFailure("the campaign has no measured baseline yet")
        return champion

    def noise(self) -> Noise:
        """The noise of paired differences on this device, pooled over what was replicated."""
        return noise_of(self.ledger, self.experiment, self.device.name, self.rules.concurrency)

    # ------------------------------------------------------------------ 7: record

    def settle(self, slot: Slot, trial: Trial, verdict: str, reason: str) -> SlotRecord:
        """Write the verdict: commit object, one transaction, then refs as its projection.

        Raises:
            ledger.ChampionMoved: A keep, and another mutation was kept since the bar was read.
        """
        if slot.record.state == "done":
            return slot.record
        added, removed = changed_lines(slot.before, slot.files) if slot.files else (0, 0)
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
        from .trailers import of_slot

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

    def _data_hash(self) -> str:
        return str(self.ledger.meta("data_sha256") or "")

    def project(self) -> None:
        """Make refs say what the ledger says; repeatable at any time."""
        from .trailers import ANCHOR

        champion = self.ledger.champion()
        if champion is None:
            return
        tried = {s.name: s.commit for s in self.ledger.slots() if s.kind != "baseline" and s.commit}
        if anchor := self.ledger.meta("anchor"):
            tried[ANCHOR] = anchor
        self.repository.project(self.rules.tag, champion.commit, tried)

    def close(self) -> None:
        """Stop trials and helpers; a draft that is ready waits for the next session."""
        if (ready := self._draft.ready()) is not None:
            self.ledger.add_draft(*ready)
        if self._proposer is not None:
            self._proposer.close()
        self.executor.close()


def _verdict_of(result: TrialResult) -> str:
    return {"ok": "", "hopeless": "discard"}.get(result.status, result.status)


def _figures(trial: TrialRecord) -> dict[str, float]:
    figures = {
        "train_seconds": trial.train_seconds,
        "total_seconds": trial.total_seconds,
        "steps": float(trial.steps),
        "parameters": float(trial.parameters),
        "peak_memory_mb": trial.peak_memory_bytes / 2**20,
        "work": trial.work,
    }
    if trial.train_seconds:
        figures["work_per_second"] = trial.work / trial.train_seconds
    return figures


def noise_of(
    ledger: Ledger, experiment: Experiment, device: str | None = None, concurrency: int = 0
) -> Noise:
    """Pool the noise of paired differences over every slot that was replicated.

    Args:
        ledger: Of the campaign.
        experiment: Decides whether the shipped prior fits, or one of the calibration's scale.
        device: Only trials on this device count; None: all.
        concurrency: Only trials with so many side by side count; 0: all.
    """
    from .judge import CUDA_PRIOR, Prior, estimate_noise, prior_from

    champions = ledger.champions()
    on_cuda = any(trial.device.startswith("cuda") for trial in ledger.trials()[:1])
    scores = {champion.slot_id: champion.scores for champion in champions}
    groups = []
    for slot in ledger.slots():
        reference = scores.get(slot.champion_before or 0, {})
        groups.append(
            {
                trial.seed: trial.score - reference[trial.seed]
                for trial in slot.own_trials
                if trial.score is not None
                and trial.seed in reference
                and device in (None, trial.device)
                and concurrency in (0, trial.concurrency)
            }
        )
    known_scale = experiment.metric.name == "val_bpb" and experiment.run is None
    if known_scale or not champions:
        return estimate_noise(groups, CUDA_PRIOR if on_cuda else Prior())
    return estimate_noise(groups, prior_from(champions[0].scores.values()))
