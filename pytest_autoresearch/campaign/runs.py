"""Trials of one campaign: what each is given, how long it may take, and its row in the ledger."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.errors import InfrastructureFailure, Interrupted
from ..core.experiment import Experiment
from ..judge.noise import noise_of
from .attempt import Rules, WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Champion
    from ..core.run import Run, RunSpec
    from ..judge.verdicts import Noise
    from ..ledger.git import Repository
    from ..ledger.store import Ledger
    from ..source.fingerprint import Shape
    from ..training.devices import Device
    from ..training.executor import Executor

MEMORY_SHARE = 0.9
"""Share of the memory that the trials of this machine may take together."""

TICK_S = 0.25
"""How often a waiting step looks at the stop flag and at the ledger."""


class Runner:
    """One process's hands on the device and the ledger's rows of trials.

    Attributes:
        running: Attempt and purpose of the last trial that was started, or None.
    """

    def __init__(
        self,
        *,
        root: Path,
        experiment: Experiment,
        rules: Rules,
        ledger: Ledger,
        repository: Repository,
        device: Device,
        executor: Executor,
        should_stop: Callable[[], bool] = lambda: False,
    ) -> None:
        self.root = root
        self.experiment = experiment
        self.rules = rules
        self.ledger = ledger
        self.repository = repository
        self.device = device
        self.executor = executor
        self.running: tuple[WorkingAttempt, str] | None = None
        self._should_stop = should_stop
        self._shapes: dict[str, Shape] = {}

    def run(
        self,
        attempt: WorkingAttempt,
        code: Mapping[str, str],
        seed: int,
        purpose: str,
        **changes: Any,
    ) -> Run:
        """Train and score once; the row is written before and after.

        Args:
            attempt: Attempt it is done for.
            code: The editable files.
            seed: Of the trial.
            purpose: What it is for.
            changes: Fields of the `RunSpec` that differ from an ordinary trial's.

        Raises:
            InfrastructureFailure: The trial could not be run.
            Interrupted: The session was asked to stop.
        """
        from ..core.run import Run

        spec = replace(self._spec(attempt, code, seed, purpose), **changes)
        run_id = self.ledger.start_run(
            attempt.record.id,
            seed=seed,
            purpose=purpose,
            device=self.device.name,
            concurrency=self.rules.concurrency,
            budget=str(spec.budget),
        )
        self.running = (attempt, purpose)
        try:
            result = self.executor.run(spec, self._should_stop)
        except BaseException as error:
            with contextlib.suppress(
                Exception
            ):  # a finished attempt's trial is ended by nobody else
                ended = Run("interrupted", reason=type(error).__name__)
                self.ledger.finish_run(run_id, ended)
            raise
        self.ledger.finish_run(run_id, result)
        if result.status == "interrupted":
            raise Interrupted(result.reason)
        if result.status == "infra":
            raise InfrastructureFailure(result.reason)
        return result

    def _spec(
        self, attempt: WorkingAttempt, files: Mapping[str, str], seed: int, purpose: str
    ) -> RunSpec:
        from ..core.run import RunSpec

        experiment = self.experiment
        copy = (
            dict(self.repository.export(attempt.parent_commit or self.rules.base_commit))
            if (experiment.run)
            else {}
        )
        copy.update({name: text.encode() for name, text in files.items()})
        reference = None
        if self.rules.budget.kind == "equal":
            base = self.read(self.rules.base_commit)
            reference = {name: text.encode() for name, text in base.items()}
        return RunSpec(
            run_id=f"{attempt.record.id:05d}-{purpose}-{seed}",
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
            memory_limit_bytes=self.memory_bound(),
            startup_limit_s=self._startup_limit(),
            champion_losses=self._champion_losses(),
            scoring_cpu_limit_s=self._scoring_limit(),
            reference_files=reference,
        )

    def memory_bound(self) -> int:
        """Bytes that one trial may take of what all on this machine share."""
        from ..training.devices import memory_bytes

        return int(MEMORY_SHARE * memory_bytes() / self.rules.concurrency)

    def wall_limit(self) -> float:
        """Twice the budget and the calibrated start-up; before calibration, generously more.

        Work is done at the machine's pace of the moment, so where the budget is not in seconds
        the baseline's own wall time, tripled for a busier hour, stands for it.
        """
        measured = self.calibration()
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
        runs = self.ledger.attempt(champion.attempt_id).runs
        kept = [run.losses for run in runs if run.losses is not None]
        return next((path for path in kept if path.is_file()), None)

    def _scoring_limit(self) -> float | None:
        """CPU seconds of scoring: twice what the slowest baseline took, so none trains on there."""
        measured = [run.evidence.get("scoring_cpu_s") for run in self.calibration()]
        seconds = [sum(m.values()) if isinstance(m, dict) else m for m in measured if m]
        return 2 * max(seconds) + 5 if seconds else None

    def _startup_limit(self) -> float:
        measured = [t.causes.get("start", 0.0) for t in self.calibration()]
        return max(20.0, 5 * max(measured)) if measured else 120.0

    def calibration(self) -> Sequence[Run]:
        """Return the baseline's trials that have a score."""
        return [
            run for run in self.ledger.runs() if run.purpose == "calibrate" and run.status == "ok"
        ]

    def read(self, commit: str) -> dict[str, str]:
        """Return the editable files of `commit`."""
        return self.repository.read(commit, self.experiment.files)

    def shape(self, commit: str) -> Shape:
        """Return the shape of the editable files of `commit`."""
        from ..source.fingerprint import shape

        if commit not in self._shapes:
            self._shapes[commit] = shape(self.read(commit))
        return self._shapes[commit]

    def checkpoint(self, run: Run) -> Path | None:
        """Where a trial's checkpoint is now, wherever the project was then; None if it is gone."""
        if run.checkpoint is None:
            return None
        runs = self.root / ".autoresearch" / self.rules.tag / "runs"
        here = runs / run.checkpoint.parent.name / run.checkpoint.name
        return here if here.is_file() else None

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
        """Return the noise of paired differences, pooled over the campaign."""
        return noise_of(self.ledger.attempts(), self.ledger.champions(), self.experiment.metric)

    def wait(self, what: str) -> None:
        """Sleep a moment, then free what dead workers held.

        Raises:
            Interrupted: The session was asked to stop.
        """
        if self._should_stop():
            raise Interrupted(f"stopped {what}")
        time.sleep(TICK_S)
        self.ledger.recover()
