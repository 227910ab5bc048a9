"""A run of the training contract: train in a confined process, take the checkpoint, score it."""

from __future__ import annotations

import contextlib
import math
import shutil
import time
from collections.abc import Iterator
from dataclasses import replace

from ..core.run import Purpose
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import Child
from ..scoring import evaluator
from .checkpoint import take_checkpoint
from .clock import Clock, StepClock, WallClock, WorkClock
from .context import CHECKPOINT, LOSSES, RunContext, write_files
from .dataloader import DataLoader
from .limits import Ended
from .protocol import MAX_DECLARED, TrainingProcess
from .reference import Reference
from .workclock import Burst, EqualWorkClock

SMOKE_STEPS = 2


class TrainingRun:
    """Steps of one run of the training contract; each raises `Ended` if it is the last."""

    def __init__(self, context: RunContext) -> None:
        self.context = context
        self.spec = context.spec
        self.limits = context.limits

    def run(self) -> None:
        """Train, take the checkpoint and score it."""
        context, work = self.context, self.context.work
        tokens = context.dataset.training_tokens()
        try:
            with contextlib.closing(DataLoader(tokens, self.spec.seed)) as dataloader:
                with self.limits.cause("start"):
                    shutil.rmtree(context.directory, ignore_errors=True)
                    write_files(self.spec.files, context.copy)
                    work.mkdir()
                    child = context.launcher.start(context.job("train", work / CHECKPOINT, work))
                declared = self._train(child, dataloader)
            with self.limits.cause("save"):
                self._take_checkpoint(declared)
        finally:
            shutil.rmtree(work, ignore_errors=True)
        self._score()

    def _train(self, child: Child, dataloader: DataLoader) -> int:
        """Train in `child` and end it; return the declared bytes of its model."""
        context, spec = self.context, self.spec
        context.result = replace(context.result, sandbox=dict(child.report))
        training = TrainingProcess(
            child, self.limits, spec.allowances, wall_budget=spec.budget.kind == "wall"
        )
        facts: dict[str, float] = {}
        try:
            with self.limits.cause("start"):
                training.ready()
            limit = spec.checkpoint_limit_bytes
            if limit is not None and training.declared_bytes > limit:
                raise Ended(
                    "crash",
                    f"the model holds {training.declared_bytes} bytes; at most {limit} are "
                    "accepted, a multiple of the baseline's",
                )
            clock = self._clock(child)
            try:
                training.run(dataloader, clock)
            finally:
                facts = clock.facts()
        finally:
            if facts:
                context.add_evidence({"clock": facts})
            reference_s = facts.get("reference_wall_s", 0.0)
            self.limits.book("reference", reference_s)
            self.limits.book("train", training.train_seconds - reference_s)
            context.result = replace(
                context.result,
                parameters=training.parameters,
                train_seconds=training.train_seconds,
                cpu_seconds=training.cpu_seconds,
                work=float(dataloader.tokens),
                steps=dataloader.steps,
                curve=tuple(training.curve),
            )
            cpu_s = self._end(child, training)
        try:
            training.charge_saving(clock, cpu_s)
        finally:
            context.add_evidence({"charged": training.bill})
        return training.declared_bytes

    def _end(self, child: Child, training: TrainingProcess) -> float:
        """Kill the remaining training processes; store their output and memory.

        Returns:
            CPU seconds of the group, from fork to kill.
        """
        with self.limits.cause("other"):
            ended = child.kill()
        head, tail = child.log()
        device_memory = training.metrics.pop("device_memory_bytes", None)
        peak = ended.peak_memory_bytes  # on a CPU, a self-reported figure is ignored
        if self.spec.device == "cuda" and device_memory is not None:
            peak = int(min(max(device_memory, 0.0), MAX_DECLARED))
        self.context.result = replace(
            self.context.result,
            log_head=head,
            log_tail=tail,
            metrics=training.metrics,
            peak_memory_bytes=peak,
            exit_code=None if ended.stopped else ended.code,
            signal=None if ended.stopped else ended.signal,
        )
        return ended.cpu_seconds

    def _clock(self, child: Child) -> Clock:
        spec, budget, launcher = self.spec, self.spec.budget, self.context.launcher
        if spec.purpose is Purpose.SMOKE:
            return StepClock(SMOKE_STEPS, spec.allowances.train_cpu_s or math.inf)
        if budget.kind == "wall":
            return WallClock(budget.amount, step=spec.allowances.step)
        if budget.kind == "work":
            return WorkClock(budget.amount, spec.allowances.step)
        if spec.device != "cpu":
            raise LaunchFailed(f"a budget of {budget} counts CPU work; on CUDA, give it in seconds")
        reference = self._reference()

        @contextlib.contextmanager
        def paused() -> Iterator[None]:
            child.pause()
            try:
                yield
            finally:
                child.resume()

        def burst(progress: float) -> Burst:
            try:
                return reference.burst(progress)
            except LaunchFailed:
                launcher.drop()
                raise

        return EqualWorkClock(
            budget.amount, child.cpu_seconds, burst, paused,
            step=spec.allowances.step, plan=spec.plan,
        )  # fmt: skip

    def _reference(self) -> Reference:
        """Return the baseline's process; an earlier run's is reused if it runs the same files."""
        context, spec, dataset = self.context, self.spec, self.context.dataset
        files = spec.reference_files
        if files is None:
            raise LaunchFailed(f"a budget of {spec.budget} needs the baseline's files")

        key = (dict(files), spec.entry, dataset.sha256, spec.threads, context.sandbox_mode)
        with self.limits.cause("reference"):
            return context.launcher.keep(key, lambda: Reference(context, files))

    def _take_checkpoint(self, declared: int) -> None:
        """Take the checkpoint, and measure the model by it.

        Raises:
            Ended: It is not a checkpoint, or is larger than declared plus a tenth.
        """
        context = self.context
        found = take_checkpoint(
            context.work / CHECKPOINT,
            context.directory / CHECKPOINT,
            declared + declared // 10 + (64 << 10),
        )
        context.add_evidence({"checkpoint_bytes": found.size})
        context.result = replace(
            context.result, checkpoint=found.path, parameters=found.parameters
        )

    def _score(self) -> None:
        context, spec, dataset = self.context, self.spec, self.context.dataset
        context.enter_phase("score")
        began, audit_s = time.monotonic(), 0.0
        try:
            with context.scoring_errors():
                if spec.purpose is Purpose.SMOKE:
                    value = evaluator.rehearse(
                        context.start_scorer, dataset, device=spec.device,
                        cpu_limit_s=spec.scoring_cpu_limit_s, wall_limit_s=context.scoring_wall_s,
                    )  # fmt: skip
                    context.result = replace(context.result, score=value)
                    return
                score = evaluator.evaluate(
                    context.start_scorer, dataset, audit=spec.audit, device=spec.device,
                    champion_losses=spec.champion_losses, on_phase=context.enter_phase,
                    cpu_limit_s=spec.scoring_cpu_limit_s, wall_limit_s=context.scoring_wall_s,
                )  # fmt: skip
            audit_s = score.seconds.get("audit", 0.0)
        finally:
            self.limits.book("score", time.monotonic() - began - audit_s)
            self.limits.book("audit", audit_s)
        context.take_score(score, context.result.sandbox)
        context.add_evidence({"properties": score.properties, "scoring_cpu_s": score.cpu_seconds})
        losses = score.save_losses(context.directory / LOSSES)
        context.result = replace(context.result, losses=losses)
