"""Train, score and replicate one slot as far as the judge asks, and hold it against every guard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.errors import InfrastructureFailure
from ..core.outcome import NoScore, Score, Trial
from ..core.records import PRUNE, SMOKE, GateNote
from .attempt import Slot

if TYPE_CHECKING:
    from ..core.records import SlotRecord
    from ..core.run import TrialResult
    from ..judge.verdicts import Decision, Judge
    from .runs import Trials

AUDIT_KEEP = 2048
"""Positions audited before a keep; every trial has 512."""

DOWNSTREAM_EVERY = 10
"""Every how many slots the downstream task is run, besides on every keep."""

CHAMPION_SEEDS = 3
"""Seeds that the champion may be trained on to get one more pair; it may fail on one."""


class Measurement:
    """What stands between a mutation's files and its verdict.

    Args:
        trials: Of the campaign.
        judge: Says what to do next.
    """

    def __init__(self, trials: Trials, judge: Judge) -> None:
        self.trials, self.judge = trials, judge
        self.experiment, self.rules = trials.experiment, trials.rules
        self.ledger, self.repository = trials.ledger, trials.repository

    def measure(self, slot: Slot) -> Trial:
        """Train, score and replicate as far as the judge asks; never raises for the candidate."""
        from ..source.fingerprint import fingerprint

        slot_id, metric = slot.record.id, self.experiment.metric
        if slot.refusal is not None:
            return self._failed(slot)
        if slot.record.state == "done":
            return Trial(metric, slot_id, slot.record.score)
        if slot.record.kind == "baseline":
            seed = self.rules.baseline_seeds[slot.record.number - 1]
            files = self.trials.read(self.rules.base_commit)
            slot.fingerprint = fingerprint(files)  # who goes back to it repeats it
            result = self.trials.run(slot, files, seed, "calibrate")
            self._see_bounded(result)
            if slot.record.number == 1 and result.score is not None:
                self._see_checks_pass(slot, files)
            return Trial(metric, slot_id, result.score, _verdict_of(result), result.reason)
        champion = self.trials.champion()
        seed = sorted(champion.scores)[slot.record.number % len(champion.scores)]
        if not self._smoke(slot, seed):
            return self._failed(slot)
        purpose = "first"
        while True:
            curve = self._champion_curve(slot, seed)
            result = self.trials.run(slot, slot.files, seed, purpose, champion_curve=curve)
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
            assert decision.seed is not None
            seed, purpose = decision.seed, "replicate"
            if decision.remeasure_champion:
                seed = self._measure_champion(slot, seed, CHAMPION_SEEDS - 1)
        if decision.action != "keep" and slot.record.number % DOWNSTREAM_EVERY == 0:
            self._look_downstream(slot)
        return Trial(metric, slot_id, sum(slot.scores.values()) / len(slot.scores))

    def _see_bounded(self, result: TrialResult) -> None:
        """See that the baseline reports what is bounded, or every mutation would break a bound."""
        from ..judge.constraints import MEASURED, figure
        from ..training.rescore import CLOZE

        for guard in self.experiment.guards if result.score is not None else ():
            absolute = guard.at_most is not None or guard.at_least is not None
            known = guard.metric in (*MEASURED, CLOZE) or figure(result, guard.metric) is not None
            if absolute and not known:
                told = ", ".join(sorted(result.metrics)) or "nothing"
                raise InfrastructureFailure(
                    f"Guard({guard.metric!r}) bounds a figure that the baseline does not report "
                    f"(it reports {told}); have it reported, or take the guard out"
                )

    def _champion_curve(self, slot: Slot, seed: int) -> tuple[tuple[float, float], ...]:
        """The champion's losses on a seed, if the mutation means the same loss.

        Only where nothing but literals differs is that sure; a run that adds a term to its loss
        must not be given up for it.
        """
        from ..source.fingerprint import shape

        champion = self.trials.champion()
        if self.trials.shape(champion.commit).skeleton != shape(slot.files).skeleton:
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
        from ..source.checks import fits_memory

        result = self.trials.run(slot, slot.files, seed, SMOKE, phase="smoke")
        if result.checkpoint is not None:
            shutil.rmtree(result.checkpoint.parent, ignore_errors=True)
        ok = result.status == "ok"
        notes = [GateNote("smoke", ok, result.reason, result.total_seconds)]
        if not ok:
            slot.refusal = NoScore(_verdict_of(result), result.reason)
        else:
            notes.append(fits_memory(result.peak_memory_bytes, self._memory_bound()))
            if not notes[-1].ok:
                slot.refusal = NoScore("guard", notes[-1].detail)
        self.ledger.note_gates(slot.record.id, notes)
        return slot.refusal is None

    def _memory_bound(self) -> int | None:
        """Bound of a trial's memory; a GPU's own is watched while it runs, and not seen here."""
        return self.trials.memory_bound() if self.trials.device.kind == "cpu" else None

    def _guarded(self, slot: Slot, result: TrialResult) -> bool:
        """Hold a trial against the bounds on what a gain may cost."""
        from ..judge import constraints
        from ..training.rescore import CLOZE

        baseline = self.trials.calibration()
        wall = self.rules.budget.kind == "wall"
        bounds = constraints.built_in(self.experiment, wall, baseline, self._memory_bound())
        own = [guard for guard in self.experiment.guards if guard.metric != CLOZE]
        notes = constraints.check(result, baseline, [*bounds, *own])
        if len(slot.scores) > 1:  # the first trial said what there is to say, but for this
            notes = [note for note in notes if not note.ok]
        self.ledger.note_gates(slot.record.id, notes)
        return _unbroken(slot, notes)

    def _checked(self, slot: Slot) -> bool:
        """Run the user's checks in the mutated copy of the whole project."""
        if self.experiment.checks is None:
            return True
        result, reason = self._check(slot, slot.files, next(iter(slot.scores)))
        note = GateNote("checks", not reason, result.reason, result.total_seconds)
        self.ledger.note_gates(slot.record.id, [note])
        if reason:
            slot.refusal = NoScore("guard", reason)  # one that hangs is no fault of the training
        return not reason

    def _see_checks_pass(self, slot: Slot, files: Mapping[str, str]) -> None:
        """See that the unchanged code passes the user's checks, or nothing would ever be kept."""
        if self.experiment.checks is None:
            return
        _, reason = self._check(slot, files, self.rules.baseline_seeds[0])
        if reason:
            raise InfrastructureFailure(f"the unchanged code does not pass {reason}")

    def _check(self, slot: Slot, files: Mapping[str, str], seed: int) -> tuple[TrialResult, str]:
        """Run the checks on some files; returns the result, and '' or why they failed."""
        from ..judge.constraints import last_lines

        copy = dict(self.repository.export(slot.parent_commit or self.rules.base_commit))
        copy.update({name: text.encode() for name, text in files.items()})
        result = self.trials.run(
            slot, files, seed, "check", phase="check", files=copy,
            command=("sh", "-c", self.experiment.checks),
        )  # fmt: skip
        if result.status == "ok":
            return result, ""
        said = last_lines(result)
        return result, f"the experiment's checks: {result.reason}" + (f"\n{said}" if said else "")

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
            result = self.trials.run(slot, slot.files, trial.seed, "audit", **deeper)
            if result.score is None:
                slot.refusal = NoScore(_verdict_of(result), result.reason)
                return False
        return True

    def _downstream(self, slot: Slot) -> bool:
        """Hold what the model can do besides its score against the bounds on it."""
        return _unbroken(slot, self._look_downstream(slot))

    def _look_downstream(self, slot: Slot) -> list[GateNote]:
        """Look at what the model can do besides its score; it says nothing of the score itself."""
        from ..judge.constraints import check
        from ..training.rescore import CLOZE

        saved = [t for t in self.ledger.slot(slot.record.id).own_trials if t.checkpoint is not None]
        if self.experiment.run is not None or not saved:
            return []
        assert saved[0].checkpoint is not None
        name = saved[0].checkpoint.parent.name
        result = self.trials.run(
            slot, slot.files, saved[0].seed, "downstream", phase="downstream", trial_id=name
        )
        bounds = [guard for guard in self.experiment.guards if guard.metric == CLOZE]
        if result.status != "ok":
            # a model that refuses the task must not get around a bound on it
            name, said = f"guard {CLOZE}" if bounds else "downstream", result.reason
            notes = [GateNote(name, not bounds, f"{CLOZE} could not be measured: {said}")]
        elif CLOZE not in result.metrics:
            notes = [GateNote("downstream", True, "the data set is too small for it")]
        else:
            notes = check(result, (), bounds) or [
                GateNote("downstream", True, f"{CLOZE} {result.metrics[CLOZE]:.4f}")
            ]
        notes = [replace(note, seconds=result.total_seconds) for note in notes]
        self.ledger.note_gates(slot.record.id, notes)
        return notes

    def bar(self, slot: Slot) -> Score:
        """The number to beat, against the champion as it stands now."""
        direction = self.experiment.metric.direction
        if slot.refusal is not None or not slot.scores:
            champion = self.trials.champion()
            return Score(champion.mean, direction, f"champion's mean of {len(champion.scores)}")
        decision = self._decide(slot)
        return Score(decision.bar, direction, decision.explanation)

    def _decide(self, slot: Slot) -> Decision:
        slot.champion = self.trials.champion()
        while not set(slot.scores) & set(slot.champion.scores):
            # another mutation was kept meanwhile, on other seeds: pair it with this one's; and
            # while that one is trained, yet another may be kept
            self._measure_champion(slot, next(iter(slot.scores)))
            slot.champion = self.trials.champion()
        slot.decision = self.judge.decide(
            slot.scores,
            slot.champion.scores,
            self.trials.noise(),
            slot.record.number,
            self._is_simpler(slot),
            0 if slot.record.kind == PRUNE else self._keeps(),
        )
        return slot.decision

    def _keeps(self) -> int:
        """Mutations kept for their gain so far, which is what loosens the judge's bounds."""
        from ..judge.verdicts import earned

        return sum(
            earned(slot.gain, slot.score, slot.bar, self.experiment.metric.direction)
            for slot in self.ledger.slots()
            if slot.kind == "mutation" and slot.verdict == "keep"
            and slot.gain is not None and slot.score is not None and slot.bar is not None
        )  # fmt: skip

    def _is_simpler(self, slot: Slot) -> bool:
        """Whether being equal is enough: less code, or a keep left out."""
        from ..source.fingerprint import complexity

        assert slot.champion is not None
        if slot.record.kind == PRUNE:
            return True
        return complexity(slot.files) < complexity(self.trials.read(slot.champion.commit))

    def _measure_champion(self, slot: Slot, seed: int, others: int = 0) -> int:
        """Train the champion on a seed it lacks, so that the comparison stays paired.

        Args:
            slot: Slot it is done for.
            seed: The seed.
            others: How many of the next seeds may take its place: that the champion fails on one
                is no fault of the mutation, and must not cost every night's close calls.

        Returns:
            The seed that it has a score on.

        Raises:
            InfrastructureFailure: It has a score on none of them.
        """
        champion = self.trials.champion()
        for at in range(seed, seed + others + 1):
            if at in champion.scores:
                return at
            result = self.trials.run(slot, self.trials.read(champion.commit), at, "champion")
            if result.score is not None:
                self.ledger.add_champion_scores(champion.version, {at: result.score})
                return at
        raise InfrastructureFailure(
            f"the champion has no score on seed {at} ({result.status}): {result.reason}"
        )

    def verify(self, record: SlotRecord) -> list[tuple[int, float | None, TrialResult]]:
        """Score a slot's commit once more: from its checkpoints, or by training it again.

        Args:
            record: The slot; it must have a commit.

        Returns:
            For each of its replicates: seed, score then, and result now.
        """
        slot = Slot(record, parent_commit=record.commit)
        files = self.trials.read(record.commit)
        found: list[tuple[int, float | None, TrialResult]] = []
        for trial in record.own_trials:
            if trial.score is None:
                continue
            changes: dict[str, Any] = {}
            if (checkpoint := self.trials.checkpoint(trial)) is not None:
                name = checkpoint.parent.name
                changes = {"phase": "rescore", "trial_id": name, "audit": AUDIT_KEEP}
            result = self.trials.run(slot, files, trial.seed, "verify", **changes)
            found.append((trial.seed, trial.score, result))
        return found

    def _failed(self, slot: Slot) -> Trial:
        assert slot.refusal is not None
        refusal = slot.refusal
        return Trial(self.experiment.metric, slot.record.id, None, refusal.verdict, refusal.reason)


def _unbroken(slot: Slot, notes: Sequence[GateNote]) -> bool:
    """Refuse a slot that broke a bound."""
    broken = [note.detail for note in notes if not note.ok]
    if broken:
        slot.refusal = NoScore("guard", "; ".join(broken))
    return not broken


def _verdict_of(result: TrialResult) -> str:
    return {"ok": "", "hopeless": "discard"}.get(result.status, result.status)
