"""Runs trainings and records each in the ledger."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.errors import InfrastructureFailure, Interrupted
from ..core.experiment import Budget, Experiment
from ..core.run import SCORING, Allowances, CostPlan, Purpose, Run, RunSpec
from ..judge.noise import noise_of
from ..ledger.git import Export
from ..ledger.repair import Commits
from ..scoring import AUDIT, AUDIT_KEEP
from ..source.fingerprint import CONTRACT, Shape, fingerprint, shape
from ..training.devices import Device, memory_bytes
from .attempt import WorkingAttempt
from .cleanup import run_name, tidy
from .costs import plan_cost, program
from .facts import CampaignFacts, SessionSettings

if TYPE_CHECKING:
    from ..core.records import Champion
    from ..judge.verdicts import Noise
    from ..ledger.git import Repository
    from ..ledger.store import Ledger
    from ..training.executor import Executor

MEMORY_SHARE = 0.9
"""Share of this machine's memory that all concurrent runs may take together."""

CHECKPOINT_TIMES = 8
"""Largest checkpoint of a mutation, as a multiple of the baseline's; 64 MiB are added."""


SAVED = (*SCORING, Purpose.CONFIRM)
"""Purposes of the runs whose checkpoint is kept; those of a confirmation go to the holdout."""


class Runner:
    """Runs trainings on this process's device and records each in the ledger.

    Attributes:
        running: Attempt and purpose of the last run that was started, or None.
    """

    def __init__(
        self,
        *,
        root: Path,
        experiment: Experiment,
        facts: CampaignFacts,
        settings: SessionSettings,
        ledger: Ledger,
        repository: Repository,
        device: Device,
        executor: Executor,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.root = root
        self.experiment = experiment
        self.facts = facts
        self.settings = settings
        self.ledger = ledger
        self.repository = repository
        self.commits = Commits(repository, ledger, experiment.files)
        self.device = device
        self.executor = executor
        self.running: tuple[WorkingAttempt, Purpose] | None = None
        self._should_stop = should_stop
        self._shapes: dict[str, Shape] = {}
        self._calibration: tuple[Run, ...] | None = None

    def run(
        self,
        attempt: WorkingAttempt,
        code: Mapping[str, str],
        seed: int,
        purpose: Purpose,
        *,
        checkpoint: Path | None = None,
        budget: Budget | None = None,
        stream: int = 0,
        repeats: float | None = None,
    ) -> Run:
        """Run once; the row is written before and after.

        Args:
            attempt: Attempt that the run belongs to.
            code: The editable files.
            seed: Given to the candidate.
            purpose: What the run is for.
            checkpoint: Of an earlier run; scored instead of training.
            budget: Instead of the campaign's; the limits calibrated for that one are relaxed.
            stream: Random stream of the candidate.
            repeats: Score of the same code on this seed with the stream 0, for the record.

        Raises:
            InfrastructureFailure: The run failed for a reason that is not the candidate's.
            Interrupted: The session was asked to stop.
        """
        experiment, settings, checks = self.experiment, self.settings, purpose is Purpose.CHECK
        calibration = self.calibration()
        wall_limit = self.wall_limit()
        if budget is not None:
            wall_limit *= 2 * max(1.0, budget.amount / self.facts.budget.amount)
        comparable = budget is None and purpose is not Purpose.HOLDOUT
        reference = None
        if self.facts.budget.kind == "equal":
            reference = _encoded(self.read(self.facts.base_commit))
        export = Export({}, {})
        if experiment.run is not None or checks:
            export = self.repository.export(attempt.parent_commit or self.facts.base_commit)
        spec = RunSpec(
            run_id=(
                checkpoint.parent.name
                if checkpoint is not None
                else run_name(attempt.record.id, purpose, seed)
            ),
            files={**export.files, **_encoded(code)},
            modes=export.modes,
            entry=experiment.files[0],
            seed=seed,
            stream=stream,
            budget=budget or self.facts.budget,
            data=self.root / experiment.data if experiment.data else None,
            command=("sh", "-c", experiment.checks or "") if checks else experiment.run,
            metric=experiment.metric.name,
            purpose=purpose,
            from_checkpoint=checkpoint is not None,
            audit=AUDIT_KEEP if purpose in (Purpose.AUDIT, Purpose.VERIFY) else AUDIT,
            device=self.device.kind,
            threads=settings.threads,
            wall_limit_s=wall_limit,
            memory_limit_bytes=self.memory_bound(),
            checkpoint_limit_bytes=_checkpoint_limit(calibration),
            allowances=Allowances.of(calibration, self.facts.budget),
            plan=self._plan(attempt, code),
            champion_losses=self._champion_losses() if comparable else None,
            scoring_cpu_limit_s=_scoring_limit(calibration) if budget is None else None,
            reference_files=reference,
        )
        run_id = self.ledger.start_run(
            attempt.record.id,
            seed=seed,
            purpose=purpose,
            device=self.device.name,
            concurrency=settings.concurrency,
            budget=str(spec.budget),
        )
        self.running = (attempt, purpose)
        keep = checkpoint is not None
        try:
            result = self.executor.run(spec, self._should_stop)
            keep = keep or (purpose in SAVED and result.status == "ok")
        except BaseException as error:
            with contextlib.suppress(Exception):  # recovery ends only the runs of open attempts
                self.ledger.finish_run(run_id, Run("interrupted", reason=type(error).__name__))
            raise
        finally:
            with contextlib.suppress(OSError):
                tidy(self.executor.root / spec.run_id, keep)
        if not keep:
            result = replace(result, checkpoint=None, losses=None)
        if "clock" in result.evidence:
            result = replace(result, evidence={**result.evidence, "program": program(code)})
        self.ledger.finish_run(run_id, replace(result, stream=stream, repeats=repeats))
        if result.status == "interrupted":
            raise Interrupted(result.reason)
        if result.status == "infra":
            raise InfrastructureFailure(result.reason)
        return result

    def _plan(self, attempt: WorkingAttempt, code: Mapping[str, str]) -> CostPlan:
        """Plan what `code` costs, from the runs of the attempt, its parent and the champion."""
        if self.facts.budget.kind != "equal":
            return CostPlan()
        champion, parent = self.ledger.champion(), attempt.parent
        known = {attempt.record.id, champion.attempt_id if champion else 0}
        earlier = [run for one in known - {0} for run in self.ledger.attempt(one).runs]
        made_from = parent.id if parent else champion.attempt_id if champion else 0
        made = self.ledger.attempt(made_from).own_runs if made_from else ()
        baseline = program(self.read(self.facts.base_commit))
        before = attempt.before or (self.read(champion.commit) if champion else code)
        return plan_cost(
            program(code), baseline, self.calibration(), [*earlier, *made], made,
            literal=shape(code).skeleton == shape(before).skeleton,
        )  # fmt: skip

    def memory_bound(self) -> int:
        """Return the memory limit of one run in bytes."""
        return int(MEMORY_SHARE * memory_bytes() / self.settings.concurrency)

    def wall_limit(self) -> float:
        """Return the time limit of one run in seconds.

        For a budget in seconds: twice the budget and the overhead of the slowest baseline run.
        Otherwise work proceeds at the current speed of the machine: three times the slowest
        baseline run. Before calibration: generous defaults.
        """
        calibration = self.calibration()
        if self.facts.budget.kind == "wall":
            overhead = max(
                (run.total_seconds - run.train_seconds for run in calibration), default=300.0
            )
            return 2 * self.facts.budget.amount + 2 * overhead + 30
        if not calibration:
            return 1800.0
        return 3 * max(run.total_seconds for run in calibration) + 60

    def _champion_losses(self) -> Path | None:
        """Return the champion's per-token losses, which direct half of an audit."""
        champion = self.ledger.champion()
        if champion is None:
            return None
        runs = self.ledger.attempt(champion.attempt_id).runs
        return next((run.losses for run in runs if run.losses and run.losses.is_file()), None)

    def calibration(self) -> Sequence[Run]:
        """Return the baseline's runs that have a score; they are final once there is a champion."""
        if self._calibration is not None:
            return self._calibration
        calibrated = self.ledger.champion() is not None
        runs = tuple(
            run
            for run in self.ledger.runs()
            if run.purpose is Purpose.CALIBRATE and run.status == "ok"
        )
        if calibrated:
            self._calibration = runs
        return runs

    def read(self, commit: str) -> dict[str, str]:
        """Return the editable files of `commit`; one that git has lost is made again.

        Raises:
            CommitLost: It cannot be made.
        """
        return self.commits.read(commit)

    def fingerprint(self, files: Mapping[str, str]) -> str:
        """Return the fingerprint of editable files, of which only the harness may use names."""
        alone = self.experiment.run is None and self.experiment.checks is None
        return fingerprint(files, CONTRACT if alone else None)

    def shape(self, commit: str) -> Shape:
        """Return the shape of the editable files of `commit`."""
        if commit not in self._shapes:
            self._shapes[commit] = shape(self.read(commit))
        return self._shapes[commit]

    def checkpoint(self, run: Run) -> Path | None:
        """Return a run's checkpoint, also after the project was moved; None if it is gone."""
        if run.checkpoint is None:
            return None
        path = self.executor.root / run.checkpoint.parent.name / run.checkpoint.name
        return path if path.is_file() else None

    def champion(self) -> Champion:
        """Return the current champion.

        Raises:
            InfrastructureFailure: The baseline is not measured yet.
        """
        champion = self.ledger.champion()
        if champion is None:
            raise InfrastructureFailure("the campaign has no measured baseline yet")
        return champion

    def noise(self) -> Noise:
        """Return the noise of paired differences, pooled over the campaign."""
        ledger = self.ledger
        return noise_of(ledger.attempts(), ledger.champions(), self.experiment.metric)


def _encoded(files: Mapping[str, str]) -> dict[str, bytes]:
    return {name: text.encode() for name, text in files.items()}


def _scoring_limit(calibration: Sequence[Run]) -> float | None:
    """Return the CPU limit of a scoring pass in seconds, which leaves no time to train in it."""
    measured = [run.evidence.get("scoring_cpu_s") for run in calibration]
    seconds = [sum(m.values()) if isinstance(m, dict) else m for m in measured if m]
    return 2 * max(seconds) + 5 if seconds else None


def _checkpoint_limit(calibration: Sequence[Run]) -> int | None:
    """Return the largest size of a checkpoint in bytes, from those that the baseline saved."""
    sizes = [int(run.evidence.get("checkpoint_bytes", 0)) for run in calibration]
    return CHECKPOINT_TIMES * max(sizes) + (64 << 20) if any(sizes) else None
