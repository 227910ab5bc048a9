"""Train, score and replicate one attempt as far as the judge asks, and hold it against every guard."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ..core.errors import InfrastructureFailure
from ..core.outcome import NoScore, Score, Trial
from ..core.records import ABLATION, SMOKE, CheckNote
from .attempt import WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Attempt
    from ..core.run import Run
    from ..judge.verdicts import Decision, Judge
    from .runs import Runner

AUDIT_KEEP = 2048
"""Positions audited before a keep; every trial has 512."""

DOWNSTREAM_EVERY = 10
"""Every how many attempts the downstream task is run, besides on every keep."""

CHAMPION_SEEDS = 3
"""Seeds that the champion may be trained on to get one more pair; it may fail on one."""


class Measurement:
    """What stands between a mutation's files and its verdict.

    Args:
        trials: Of the campaign.
        judge: Says what to do next.
    """

    def __init__(self, runner: Runner, judge: Judge) -> None:
        self.runner, self.judge = runner, judge
        self.experiment, self.rules = runner.experiment, runner.rules
        self.ledger, self.repository = runner.ledger, runner.repository

    def measure(self, attempt: WorkingAttempt) -> Trial:
        """Train, score and replicate as far as the judge asks; never raises for the candidate."""
        from ..source.fingerprint import fingerprint

        attempt_id, metric = attempt.record.id, self.experiment.metric
        if attempt.refusal is not None:
            return self._failed(attempt)
        if attempt.record.state == "done":
            return Trial(metric, attempt_id, attempt.record.score)
        if attempt.record.kind == "baseline":
            seed = self.rules.baseline_seeds[attempt.record.number - 1]
            files = self.runner.read(self.rules.base_commit)
            attempt.fingerprint = fingerprint(files)  # who goes back to it repeats it
            result = self.runner.run(attempt, files, seed, "calibrate")
            self._see_bounded(result)
            if attempt.record.number == 1 and result.score is not None:
                self._see_checks_pass(attempt, files)
            return Trial(metric, attempt_id, result.score, _verdict_of(result), result.reason)
        champion = self.runner.champion()
        seed = sorted(champion.scores)[attempt.record.number % len(champion.scores)]
        if not self._smoke(attempt, seed):
            return self._failed(attempt)
        purpose = "first"
        while True:
            result = self.runner.run(attempt, attempt.files, seed, purpose)
            if result.score is None:
                attempt.refusal = NoScore(_verdict_of(result), result.reason)
                return self._failed(attempt)
            attempt.scores[seed] = result.score
            if not self._guarded(attempt, result):
                return self._failed(attempt)
            decision = self._decide(attempt)
            if decision.action == "keep" and not (
                self._checked(attempt) and self._audit(attempt) and self._downstream(attempt)
            ):
                return self._failed(attempt)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed, purpose = decision.seed, "replicate"
            if decision.remeasure_champion:
                seed = self._measure_champion(attempt, seed, CHAMPION_SEEDS - 1)
        if decision.action != "keep" and attempt.record.number % DOWNSTREAM_EVERY == 0:
            self._look_downstream(attempt)
        return Trial(metric, attempt_id, sum(attempt.scores.values()) / len(attempt.scores))

    def _see_bounded(self, result: Run) -> None:
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

    def _smoke(self, attempt: WorkingAttempt, seed: int) -> bool:
        """Two steps, a checkpoint and one scored batch: what is broken costs seconds."""
        if self.experiment.run is not None:
            return True
        from ..source.checks import fits_memory

        result = self.runner.run(attempt, attempt.files, seed, SMOKE, phase="smoke")
        if result.checkpoint is not None:
            shutil.rmtree(result.checkpoint.parent, ignore_errors=True)
        ok = result.status == "ok"
        notes = [CheckNote("smoke", ok, result.reason, result.total_seconds)]
        if not ok:
            attempt.refusal = NoScore(_verdict_of(result), result.reason)
        else:
            notes.append(fits_memory(result.peak_memory_bytes, self._memory_bound()))
            if not notes[-1].ok:
                attempt.refusal = NoScore("guard", notes[-1].detail)
        self.ledger.add_check_notes(attempt.record.id, notes)
        return attempt.refusal is None

    def _memory_bound(self) -> int | None:
        """Bound of a trial's memory; a GPU's own is watched while it runs, and not seen here."""
        return self.runner.memory_bound() if self.runner.device.kind == "cpu" else None

    def _guarded(self, attempt: WorkingAttempt, result: Run) -> bool:
        """Hold a trial against the bounds on what a gain may cost."""
        from ..judge import constraints
        from ..training.rescore import CLOZE

        baseline = self.runner.calibration()
        wall = self.rules.budget.kind == "wall"
        bounds = constraints.built_in(self.experiment, wall, baseline, self._memory_bound())
        own = [guard for guard in self.experiment.guards if guard.metric != CLOZE]
        notes = constraints.check(result, baseline, [*bounds, *own])
        if len(attempt.scores) > 1:  # the first trial said what there is to say, but for this
            notes = [note for note in notes if not note.ok]
        self.ledger.add_check_notes(attempt.record.id, notes)
        return _unbroken(attempt, notes)

    def _checked(self, attempt: WorkingAttempt) -> bool:
        """Run the user's checks in the mutated copy of the whole project."""
        if self.experiment.checks is None:
            return True
        result, reason = self._check(attempt, attempt.files, next(iter(attempt.scores)))
        note = CheckNote("checks", not reason, result.reason, result.total_seconds)
        self.ledger.add_check_notes(attempt.record.id, [note])
        if reason:
            attempt.refusal = NoScore("guard", reason)  # one that hangs is no fault of the training
        return not reason

    def _see_checks_pass(self, attempt: WorkingAttempt, files: Mapping[str, str]) -> None:
        """See that the unchanged code passes the user's checks, or nothing would ever be kept."""
        if self.experiment.checks is None:
            return
        _, reason = self._check(attempt, files, self.rules.baseline_seeds[0])
        if reason:
            raise InfrastructureFailure(f"the unchanged code does not pass {reason}")

    def _check(
        self, attempt: WorkingAttempt, files: Mapping[str, str], seed: int
    ) -> tuple[Run, str]:
        """Run the checks on some files; returns the result, and '' or why they failed."""
        from ..judge.constraints import last_lines

        copy = dict(self.repository.export(attempt.parent_commit or self.rules.base_commit))
        copy.update({name: text.encode() for name, text in files.items()})
        result = self.runner.run(
            attempt, files, seed, "check", phase="check", files=copy,
            command=("sh", "-c", self.experiment.checks),
        )  # fmt: skip
        if result.status == "ok":
            return result, ""
        said = last_lines(result)
        return result, f"the experiment's checks: {result.reason}" + (f"\n{said}" if said else "")

    def _audit(self, attempt: WorkingAttempt) -> bool:
        """Audit every replicate's claims again, at many more places, before it may be kept."""
        if self.experiment.run is not None:
            return True
        for trial in self.ledger.attempt(attempt.record.id).own_runs:
            if trial.checkpoint is None:
                continue
            deeper = {
                "phase": "audit",
                "audit": AUDIT_KEEP,
                "run_id": trial.checkpoint.parent.name,
            }
            result = self.runner.run(attempt, attempt.files, trial.seed, "audit", **deeper)
            if result.score is None:
                attempt.refusal = NoScore(_verdict_of(result), result.reason)
                return False
        return True

    def _downstream(self, attempt: WorkingAttempt) -> bool:
        """Hold what the model can do besides its score against the bounds on it."""
        return _unbroken(attempt, self._look_downstream(attempt))

    def _look_downstream(self, attempt: WorkingAttempt) -> list[CheckNote]:
        """Look at what the model can do besides its score; it says nothing of the score itself."""
        from ..judge.constraints import check
        from ..training.rescore import CLOZE

        saved = [
            t for t in self.ledger.attempt(attempt.record.id).own_runs if t.checkpoint is not None
        ]
        if self.experiment.run is not None or not saved:
            return []
        assert saved[0].checkpoint is not None
        name = saved[0].checkpoint.parent.name
        result = self.runner.run(
            attempt, attempt.files, saved[0].seed, "downstream", phase="downstream", run_id=name
        )
        bounds = [guard for guard in self.experiment.guards if guard.metric == CLOZE]
        if result.status != "ok":
            # a model that refuses the task must not get around a bound on it
            name, said = f"guard {CLOZE}" if bounds else "downstream", result.reason
            notes = [CheckNote(name, not bounds, f"{CLOZE} could not be measured: {said}")]
        elif CLOZE not in result.metrics:
            notes = [CheckNote("downstream", True, "the data set is too small for it")]
        else:
            notes = check(result, (), bounds) or [
                CheckNote("downstream", True, f"{CLOZE} {result.metrics[CLOZE]:.4f}")
            ]
        notes = [replace(note, seconds=result.total_seconds) for note in notes]
        self.ledger.add_check_notes(attempt.record.id, notes)
        return notes

    def bar(self, attempt: WorkingAttempt) -> Score:
        """The number to beat, against the champion as it stands now."""
        direction = self.experiment.metric.direction
        if attempt.refusal is not None or not attempt.scores:
            champion = self.runner.champion()
            return Score(champion.mean, direction, f"champion's mean of {len(champion.scores)}")
        decision = self._decide(attempt)
        return Score(decision.bar, direction, decision.explanation)

    def _decide(self, attempt: WorkingAttempt) -> Decision:
        attempt.champion = self.runner.champion()
        while not set(attempt.scores) & set(attempt.champion.scores):
            # another mutation was kept meanwhile, on other seeds: pair it with this one's; and
            # while that one is trained, yet another may be kept
            self._measure_champion(attempt, next(iter(attempt.scores)))
            attempt.champion = self.runner.champion()
        attempt.decision = self.judge.decide(
            attempt.scores,
            attempt.champion.scores,
            self.runner.noise(),
            attempt.record.number,
            self._is_simpler(attempt),
            0 if attempt.record.kind == ABLATION else self._keeps(),
        )
        return attempt.decision

    def _keeps(self) -> int:
        """Mutations kept for their gain so far, which is what loosens the judge's bounds."""
        from ..judge.verdicts import earns_wealth

        return sum(
            earns_wealth(attempt.gain, attempt.score, attempt.bar, self.experiment.metric.direction)
            for attempt in self.ledger.attempts()
            if attempt.kind == "mutation" and attempt.verdict == "keep"
            and attempt.gain is not None and attempt.score is not None and attempt.bar is not None
        )  # fmt: skip

    def _is_simpler(self, attempt: WorkingAttempt) -> bool:
        """Whether being equal is enough: less code, or a keep left out."""
        from ..source.fingerprint import complexity

        assert attempt.champion is not None
        if attempt.record.kind == ABLATION:
            return True
        return complexity(attempt.files) < complexity(self.runner.read(attempt.champion.commit))

    def _measure_champion(self, attempt: WorkingAttempt, seed: int, others: int = 0) -> int:
        """Train the champion on a seed it lacks, so that the comparison stays paired.

        Args:
            attempt: Attempt it is done for.
            seed: The seed.
            others: How many of the next seeds may take its place: that the champion fails on one
                is no fault of the mutation, and must not cost every night's close calls.

        Returns:
            The seed that it has a score on.

        Raises:
            InfrastructureFailure: It has a score on none of them.
        """
        champion = self.runner.champion()
        for at in range(seed, seed + others + 1):
            if at in champion.scores:
                return at
            result = self.runner.run(attempt, self.runner.read(champion.commit), at, "champion")
            if result.score is not None:
                self.ledger.add_champion_scores(champion.version, {at: result.score})
                return at
        raise InfrastructureFailure(
            f"the champion has no score on seed {at} ({result.status}): {result.reason}"
        )

    def verify(self, record: Attempt) -> list[tuple[int, float | None, Run]]:
        """Score an attempt's commit once more: from its checkpoints, or by training it again.

        Args:
            record: The attempt; it must have a commit.

        Returns:
            For each of its replicates: seed, score then, and result now.
        """
        attempt = WorkingAttempt(record, parent_commit=record.commit)
        files = self.runner.read(record.commit)
        found: list[tuple[int, float | None, Run]] = []
        for trial in record.own_runs:
            if trial.score is None:
                continue
            changes: dict[str, Any] = {}
            if (checkpoint := self.runner.checkpoint(trial)) is not None:
                name = checkpoint.parent.name
                changes = {"phase": "rescore", "run_id": name, "audit": AUDIT_KEEP}
            result = self.runner.run(attempt, files, trial.seed, "verify", **changes)
            found.append((trial.seed, trial.score, result))
        return found

    def _failed(self, attempt: WorkingAttempt) -> Trial:
        assert attempt.refusal is not None
        refusal = attempt.refusal
        return Trial(
            self.experiment.metric, attempt.record.id, None, refusal.verdict, refusal.reason
        )


def _unbroken(attempt: WorkingAttempt, notes: Sequence[CheckNote]) -> bool:
    """Refuse an attempt that broke a bound."""
    broken = [note.detail for note in notes if not note.ok]
    if broken:
        attempt.refusal = NoScore("guard", "; ".join(broken))
    return not broken


def _verdict_of(result: Run) -> str:
    return "" if result.status == "ok" else result.status
