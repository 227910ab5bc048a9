"""Train, score and replicate one attempt as the judge asks, and check every constraint."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from ..core.errors import InfrastructureFailure
from ..core.outcome import NoScore, Score, Trial
from ..core.records import ABLATION, Attempt, CheckNote
from ..core.run import Purpose, Run
from ..judge import constraints
from ..judge.verdicts import FUTILITY, Decision, Judge
from ..source.checks import fits_memory
from ..source.fingerprint import complexity
from ..training.rescore import CLOZE
from .attempt import WorkingAttempt
from .runs import Runner

DOWNSTREAM_EVERY = 10
"""Attempts between two runs of the downstream task on what is not kept."""

REPEAT_EVERY = 20
"""Attempts between two repeats of the champion with another random stream, which measure the noise
and show a drift of the machine."""

DRIFT = 3.0
"""Sigma by which such a repeat has to differ before a drift is reported."""

SIMPLER_NOTE = "simpler"
"""Name of the note on an attempt that got its second pair for being simpler."""

CHAMPION_SEEDS = 3
"""Seeds that the champion may be trained on to get one more pair, since it may fail on one."""


class Measurement:
    """Everything between a mutation's files and its verdict."""

    def __init__(
        self, runner: Runner, judge: Judge, say: Callable[[str], object] = lambda line: None
    ) -> None:
        self.runner, self.judge, self.say = runner, judge, say
        self.experiment, self.facts = runner.experiment, runner.facts
        self.ledger = runner.ledger

    def measure(self, attempt: WorkingAttempt) -> Trial:
        """Train, score and replicate as the judge asks; a failing candidate raises nothing."""
        record, metric = attempt.record, self.experiment.metric
        if record.state == "done":
            return Trial(metric, record.id, record.score)
        if record.kind == "baseline":
            return self._measure_baseline(attempt)
        try:
            if attempt.refusal is not None:
                raise attempt.refusal
            self._measure_mutation(attempt)
        except NoScore as refusal:
            attempt.refusal = refusal
            return Trial(metric, record.id, None, refusal.verdict, refusal.reason)
        return Trial(metric, record.id, fmean(attempt.scores.values()))  # as the judge's mean

    def _measure_mutation(self, attempt: WorkingAttempt) -> None:
        """Fill the attempt's scores.

        Raises:
            NoScore: It fails, or violates a constraint.
        """
        number = attempt.record.number
        if number % REPEAT_EVERY == 0:
            self._repeat_champion(number)
        champion = self.runner.champion()
        seed = sorted(champion.scores)[number % len(champion.scores)]
        self._smoke(attempt, seed)
        purpose = Purpose.FIRST
        while True:
            result = self.runner.run(attempt, attempt.files, seed, purpose)
            if result.score is None:
                raise NoScore(result.verdict, result.reason)
            attempt.scores[seed] = result.score
            self._check_constraints(attempt, result)
            decision = self._decide(attempt)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            if decision.gain_sigma <= FUTILITY[0]:
                note = CheckNote(SIMPLER_NOTE, True, "a second pair, since the code is simpler")
                self.ledger.add_check_notes(attempt.record.id, [note])
            seed, purpose = decision.seed, Purpose.REPLICATE
            if decision.remeasure_champion:
                seed = self._measure_champion(attempt, seed, CHAMPION_SEEDS - 1)
        if decision.action == "keep":
            self._run_checks(attempt)
            self._audit(attempt)
            _require(self._downstream(attempt))
        elif number % DOWNSTREAM_EVERY == 0:
            self._downstream(attempt)

    def _measure_baseline(self, attempt: WorkingAttempt) -> Trial:
        """Train the unchanged code on one seed and stream of the calibration.

        Raises:
            InfrastructureFailure: It does not report a bounded figure or fails the checks, so
                every mutation would.
        """
        seed, stream = self.facts.baselines[attempt.record.number]
        files = self.runner.read(self.facts.base_commit)
        attempt.fingerprint = self.runner.fingerprint(files)  # a mutation back to it is a duplicate
        purpose = Purpose.REPEAT if stream else Purpose.CALIBRATE
        result = self.runner.run(attempt, files, seed, purpose, stream=stream)
        if result.score is not None:
            self._check_reported(result)
        if attempt.record.number == 1 and result.score is not None and self.experiment.checks:
            _, failure = self._checks(attempt, files, self.facts.baseline_seeds[0])
            if failure:
                raise InfrastructureFailure(f"the unchanged code does not pass {failure}")
        metric, row = self.experiment.metric, attempt.record.id
        return Trial(metric, row, result.score, result.verdict, result.reason)

    def _check_reported(self, result: Run) -> None:
        for guard in self.experiment.guards:
            absolute = guard.at_most is not None or guard.at_least is not None
            measured = guard.metric in (*constraints.MEASURED, CLOZE)
            if absolute and not measured and constraints.figure(result, guard.metric) is None:
                reported = ", ".join(sorted(result.metrics)) or "nothing"
                raise InfrastructureFailure(
                    f"Guard({guard.metric!r}) bounds a figure that the baseline does not report "
                    f"(it reports {reported}); report it, or remove the guard"
                )

    def _smoke(self, attempt: WorkingAttempt, seed: int) -> None:
        """Run two steps, a checkpoint and one scored batch, so that broken code costs seconds."""
        if self.experiment.run is not None:
            return
        result = self.runner.run(attempt, attempt.files, seed, Purpose.SMOKE)
        notes = [CheckNote("smoke", result.status == "ok", result.reason, result.total_seconds)]
        if notes[0].ok:
            notes.append(fits_memory(result.peak_memory_bytes, self._memory_bound()))
        self.ledger.add_check_notes(attempt.record.id, notes)
        if result.verdict:
            raise NoScore(result.verdict, result.reason)
        _require(notes)

    def _memory_bound(self) -> int | None:
        """Return the memory limit of a run; a GPU's memory is watched during the run instead."""
        return self.runner.memory_bound() if self.runner.device.kind == "cpu" else None

    def _check_constraints(self, attempt: WorkingAttempt, result: Run) -> None:
        """Check a run against the bounds on time, memory and the user's figures."""
        baseline = self.runner.calibration()
        wall = self.facts.budget.kind == "wall"
        bounds = constraints.built_in(self.experiment, wall, baseline, self._memory_bound())
        own = [guard for guard in self.experiment.guards if guard.metric != CLOZE]
        notes = constraints.check(result, baseline, [*bounds, *own])
        if len(attempt.scores) > 1:  # of replicates, note only the failures
            notes = [note for note in notes if not note.ok]
        self.ledger.add_check_notes(attempt.record.id, notes)
        _require(notes)

    def _run_checks(self, attempt: WorkingAttempt) -> None:
        """Run the user's checks in a mutated copy of the whole project."""
        if self.experiment.checks is None:
            return
        result, failure = self._checks(attempt, attempt.files, next(iter(attempt.scores)))
        note = CheckNote("checks", not failure, result.reason, result.total_seconds)
        self.ledger.add_check_notes(attempt.record.id, [note])
        if failure:
            raise NoScore("guard", failure)

    def _checks(
        self, attempt: WorkingAttempt, files: Mapping[str, str], seed: int
    ) -> tuple[Run, str]:
        """Run the checks on some files; return the run, and '' or why it failed."""
        result = self.runner.run(attempt, files, seed, Purpose.CHECK)
        if result.status == "ok":
            return result, ""
        output = constraints.last_lines(result)
        reason = f"the experiment's checks: {result.reason}"
        return result, f"{reason}\n{output}" if output else reason

    def _audit(self, attempt: WorkingAttempt) -> None:
        """Audit every replicate's claims again, at more positions, before a keep."""
        for run in self.ledger.attempt(attempt.record.id).own_runs:
            if run.checkpoint is None:
                continue
            result = self.runner.run(
                attempt, attempt.files, run.seed, Purpose.AUDIT, checkpoint=run.checkpoint
            )
            if result.score is None:
                raise NoScore(result.verdict, result.reason)

    def _downstream(self, attempt: WorkingAttempt) -> list[CheckNote]:
        """Run the downstream task on the model; return notes on the user's bounds on it."""
        runs = self.ledger.attempt(attempt.record.id).own_runs
        saved = next((run for run in runs if run.checkpoint is not None), None)
        if saved is None:
            return []
        result = self.runner.run(
            attempt, attempt.files, saved.seed, Purpose.DOWNSTREAM, checkpoint=saved.checkpoint
        )
        bounds = [guard for guard in self.experiment.guards if guard.metric == CLOZE]
        if result.status != "ok":
            # A model that refuses the task breaks every bound on it.
            name = f"guard {CLOZE}" if bounds else "downstream"
            detail = f"{CLOZE} could not be measured: {result.reason}"
            notes = [CheckNote(name, not bounds, detail)]
        elif CLOZE not in result.metrics:
            notes = [CheckNote("downstream", True, "the data set is too small for it")]
        else:
            notes = constraints.check(result, (), bounds) or [
                CheckNote("downstream", True, f"{CLOZE} {result.metrics[CLOZE]:.4f}")
            ]
        notes = [replace(note, seconds=result.total_seconds) for note in notes]
        self.ledger.add_check_notes(attempt.record.id, notes)
        return notes

    def bar(self, attempt: WorkingAttempt) -> Score:
        """Return the number to beat, against the current champion."""
        direction = self.experiment.metric.direction
        if attempt.refusal is not None or not attempt.scores:
            champion = self.runner.champion()
            return Score(champion.mean, direction, f"champion's mean of {len(champion.scores)}")
        decision = self._decide(attempt)
        return Score(decision.bar, direction, decision.explanation)

    def _decide(self, attempt: WorkingAttempt) -> Decision:
        attempt.champion = self.runner.champion()
        while not set(attempt.scores) & set(attempt.champion.scores):
            # A mutation kept meanwhile on other seeds needs a pair with this one; while it is
            # trained, yet another one may be kept.
            self._measure_champion(attempt, next(iter(attempt.scores)))
            attempt.champion = self.runner.champion()
        attempt.decision = self.judge.decide(
            attempt.scores,
            attempt.champion.scores,
            self.runner.noise(),
            attempt.record.number,
            self._equal_is_enough(attempt),
        )
        return attempt.decision

    def _equal_is_enough(self, attempt: WorkingAttempt) -> bool:
        """Whether an equal score is enough: less code, or an ablation.

        Second pairs for that reason may take no larger share of a campaign than its keeps.
        """
        assert attempt.champion is not None
        if attempt.record.kind == ABLATION:
            return True
        if len(attempt.scores) == 1 and not self._may_simplify():
            return False
        return complexity(attempt.files) < complexity(self.runner.read(attempt.champion.commit))

    def _may_simplify(self) -> bool:
        kept = [one for one in self.ledger.attempts() if one.kind == "mutation"]
        second = [one for one in kept if any(note.name == SIMPLER_NOTE for note in one.check_notes)]
        return len(second) < max(1, sum(one.verdict == "keep" for one in kept))

    def _repeat_champion(self, number: int) -> None:
        """Train the champion again on a seed it has, with another random stream.

        Where wall time decides (a budget in seconds, or a command), the machine may have become
        faster or slower since, so that the new score replaces the champion's older ones.
        """
        champion, noise = self.runner.champion(), self.runner.noise()
        seeds = sorted(champion.scores)
        seed = seeds[number // REPEAT_EVERY % len(seeds)]
        before = champion.scores[seed]
        attempt = WorkingAttempt(
            self.ledger.attempt(champion.attempt_id), parent_commit=champion.commit
        )
        result = self.runner.run(
            attempt, self.runner.read(champion.commit), seed, Purpose.REPEAT,
            stream=number, repeats=before,
        )  # fmt: skip
        if result.score is None:
            return
        wall = self.facts.budget.kind == "wall" or self.experiment.run is not None
        if wall and result.score != before:
            self.ledger.replace_champion_scores(champion.version, {seed: result.score})
        change = result.score - before
        if abs(change) > noise.bar(DRIFT) * noise.sigma:
            self.say(
                f"warning: the champion now has {result.score:.6f} on seed {seed}, and had "
                f"{before:.6f}: more than the noise explains; has the load of the machine changed?"
            )

    def second_seed(self, attempt: WorkingAttempt) -> None:
        """Train a champion that was kept on one pair on a second seed, while the device is idle.

        Later attempts then take turns between both seeds, so that they are not all compared with
        one run that was selected for its luck.
        """
        scores = self.runner.champion().scores
        if len(scores) > 1:
            return
        seeds = [seed for seed in self.facts.baseline_seeds if seed not in scores]
        with contextlib.suppress(InfrastructureFailure):
            self._measure_champion(attempt, seeds[attempt.record.number % len(seeds)])

    def _measure_champion(self, attempt: WorkingAttempt, seed: int, others: int = 0) -> int:
        """Train the champion on a seed it lacks, so that the comparison stays paired.

        Where the champion fails, which is not the mutation's fault, the next seed takes its place,
        up to `others` times. Returns the seed of the score.

        Raises:
            InfrastructureFailure: The champion fails on all of them.
        """
        champion = self.runner.champion()
        for candidate in range(seed, seed + others + 1):
            if candidate in champion.scores:
                return candidate
            files = self.runner.read(champion.commit)
            result = self.runner.run(attempt, files, candidate, Purpose.CHAMPION)
            if result.score is not None:
                self.ledger.add_champion_scores(champion.version, {candidate: result.score})
                return candidate
        raise InfrastructureFailure(
            f"the champion has no score on seed {candidate} ({result.status}): {result.reason}"
        )

    def verify(self, record: Attempt) -> list[tuple[int, float, Run]]:
        """Score each replicate again: from its checkpoint, or by training where that is gone.

        Returns:
            Seed, earlier score and new run of each.
        """
        attempt = WorkingAttempt(record, parent_commit=record.commit)
        files = self.runner.read(record.commit)
        results: list[tuple[int, float, Run]] = []
        for run in record.own_runs:
            if run.score is None:
                continue
            checkpoint = self.runner.checkpoint(run)
            result = self.runner.run(
                attempt, files, run.seed, Purpose.VERIFY, checkpoint=checkpoint
            )
            results.append((run.seed, run.score, result))
        return results


def _require(notes: Sequence[CheckNote]) -> None:
    """Check that no bound is broken.

    Raises:
        NoScore: One is.
    """
    if broken := [note.detail for note in notes if not note.ok]:
        raise NoScore("guard", "; ".join(broken))
