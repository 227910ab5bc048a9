"""One trial: private copy, sandboxed training under an outside clock, checkpoint, score.

Never raises for the candidate: whatever it does becomes a `Run`.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import stat
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import sandbox, scoring
from ..core.run import Run, RunSpec, RunStatus
from ..core.text import one_line
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import Child, Launcher
from .clock import Burst, Clock, EqualWorkClock, StepClock, WallClock, WorkClock
from .dataloader import DataLoader
from .limits import Ended, OnProgress, ShouldStop, Watch
from .protocol import Training
from .reference import Reference, fingerprint, materialise
from .setup import CHECKPOINT, LOSSES, hidden, open_dataset, scorer, status_of, training_job

if TYPE_CHECKING:
    from ..data.dataset import Dataset

SMOKE_STEPS = 2


def execute(
    spec: RunSpec,
    launcher: Launcher,
    root: Path,
    *,
    on_progress: OnProgress | None = None,
    sandbox_mode: sandbox.Mode = "auto",
    should_stop: ShouldStop | None = None,
) -> Run:
    """Train and score one candidate, or run its command.

    Args:
        spec: What to run.
        launcher: Starts the processes.
        root: Folder of run directories; this trial's is ``root / spec.run_id``, made anew.
        on_progress: Told where the trial is, a few times a second.
        sandbox_mode: ``"require"``, ``"auto"`` or ``"off"``.
        should_stop: Asked a few times a second; once true, the trial ends ``"interrupted"``.

    Returns:
        The result, whatever the candidate does. Only KeyboardInterrupt and the like pass through,
        and leave no process behind.
    """
    watch = Watch(spec.wall_limit_s, on_progress, should_stop)
    watch.gpu = spec.device == "cuda"
    directory = Path(root).absolute() / spec.run_id
    values: dict[str, Any] = {}
    status: RunStatus = "ok"
    reason = ""
    try:
        if spec.command is not None:
            from .command import run_command

            run_command(spec, directory, watch, values, sandbox_mode)
        elif spec.phase in ("audit", "rescore", "downstream"):
            from .rescore import rescore

            with launcher.run() as starter:
                rescore(spec, directory, watch, values, sandbox_mode, starter)
        else:
            with launcher.run() as starter:
                _Trial(spec, directory, watch, values, sandbox_mode).run(starter, launcher)
    except Ended as ended:
        status, reason = ended.status, ended.reason
    except LaunchFailed as error:
        status, reason = "infra", one_line(error)
    except (OSError, ValueError) as error:
        # Only the harness's own steps get here: files that cannot be written, data that is gone.
        status, reason = "infra", one_line(f"{type(error).__name__}: {error}")
    if status != "ok":
        values.update(score=None, score_se=None)
    total = time.monotonic() - watch.began
    watch.book("other", max(0.0, total - sum(watch.causes.values())))
    return Run(
        status=status, reason=reason, total_seconds=total, causes=dict(watch.causes), **values
    )


class _Trial:
    """The steps of one trial of the training contract; each raises `Ended` if it is the last."""

    def __init__(
        self,
        spec: RunSpec,
        directory: Path,
        watch: Watch,
        values: dict[str, Any],
        mode: sandbox.Mode,
    ) -> None:
        self.spec = spec
        self.directory = directory
        self.watch = watch
        self.values = values
        self.mode = mode
        self.evidence: dict[str, object] = {}
        values["evidence"] = self.evidence

    def run(self, launcher: Launcher, keeper: Launcher) -> None:
        """Do everything; `keeper` holds the reference across trials."""
        dataset = open_dataset(self.spec)
        self.watch.folder = work = self.directory / "work"
        try:
            with contextlib.closing(
                DataLoader(dataset.training_tokens(), self.spec.seed)
            ) as dataloader:
                with self.watch.cause("start"):
                    shutil.rmtree(self.directory, ignore_errors=True)
                    materialise(self.spec.files, self.directory / "copy")
                    work.mkdir()
                    job = training_job(self.spec, self.directory, dataset, self.mode)
                    child = launcher.start(job)
                declared = self.train(child, dataloader, dataset, keeper)
            with self.watch.cause("save"):
                self.values["checkpoint"] = self.collect(declared)
        finally:
            shutil.rmtree(work, ignore_errors=True)
            self.watch.folder = None
        self.score(launcher, dataset)

    def train(
        self, child: Child, dataloader: DataLoader, dataset: Dataset, keeper: Launcher
    ) -> int:
        """See the training process through and end it; returns its model's declared bytes."""
        spec, values = self.spec, self.values
        values["sandbox"] = dict(child.report)
        training = Training(
            child, self.watch, spec.startup_limit_s, wall_budget=spec.budget.kind == "wall"
        )
        clock: Clock | None = None
        try:
            with self.watch.cause("start"):
                training.ready()
            clock = self.clock(child, dataset, keeper)
            training.run(dataloader, clock)
        finally:
            facts = {} if clock is None else clock.facts()
            if facts:
                self.evidence["clock"] = facts
            reference_s = facts.get("reference_wall_s", 0.0)
            self.watch.book("reference", reference_s)
            self.watch.book("train", training.train_seconds - reference_s)
            values.update(
                parameters=training.parameters,
                train_seconds=training.train_seconds,
                cpu_seconds=training.cpu_seconds,
                work=float(dataloader.tokens),
                steps=dataloader.steps,
                curve=tuple(training.curve),
            )
            self.end(child, training)
        return training.declared_bytes

    def end(self, child: Child, training: Training) -> None:
        """Kill what is left of the training processes; keep what they printed and used."""
        with self.watch.cause("other"):
            ended = child.kill()
        head, tail = child.log()
        device_memory = training.metrics.pop("device_memory_bytes", None)
        peak = ended.peak_memory_bytes  # on a CPU, what a process says of itself counts for nothing
        if self.spec.device == "cuda" and device_memory is not None:
            peak = int(device_memory)
        self.values.update(
            log_head=head, log_tail=tail, metrics=training.metrics, peak_memory_bytes=peak
        )
        if not ended.stopped:
            self.values.update(exit_code=ended.code, signal=ended.signal)

    def clock(self, child: Child, dataset: Dataset, keeper: Launcher) -> Clock:
        """The clock of the budget."""
        budget = self.spec.budget
        if self.spec.phase == "smoke":
            return StepClock(SMOKE_STEPS)
        if budget.kind == "wall":
            return WallClock(budget.amount)
        if budget.kind == "work":
            return WorkClock(budget.amount)
        if self.spec.device != "cpu":
            raise LaunchFailed(f"a budget of {budget} counts CPU work; on CUDA, give it in seconds")
        reference = self.reference(dataset, keeper)

        @contextlib.contextmanager
        def stopped() -> Iterator[None]:
            child.pause()
            try:
                yield
            finally:
                child.resume()

        def burst(progress: float) -> Burst:
            try:
                return reference.burst(progress)
            except LaunchFailed:
                keeper.drop("reference")
                raise

        return EqualWorkClock(budget.amount, child.cpu_seconds, burst, stopped)

    def reference(self, dataset: Dataset, keeper: Launcher) -> Reference:
        """The baseline's process: the one that is there, if it runs the same files."""
        files = self.spec.reference_files
        if files is None:
            raise LaunchFailed(f"a budget of {self.spec.budget} needs the baseline's files")

        def make() -> Reference:
            return Reference(
                keeper, files, self.spec.entry, dataset.training_tokens(),
                vocab_size=dataset.vocab_size, seq_len=dataset.seq_len,
                threads=self.spec.threads, hide=hidden(dataset), sandbox=self.mode,
            )  # fmt: skip

        key = (fingerprint(files), self.spec.entry, dataset.sha256, self.spec.threads, self.mode)
        with self.watch.cause("reference"):
            return keeper.keep("reference", key, make)

    def collect(self, declared: int) -> Path:
        """Take the checkpoint out of the candidate's hands, if it is one file of a fair size."""
        source, target = self.directory / "work" / CHECKPOINT, self.directory / CHECKPOINT
        limit = declared + declared // 10 + (64 << 10)
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise Ended("crash", f"no checkpoint: {os.strerror(error.errno or 0)}") from None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode):
                raise Ended("crash", "the checkpoint is not a regular file")
            if found.st_size > limit:
                raise Ended(
                    "crash",
                    f"the checkpoint holds {found.st_size} bytes; the model declared {declared} "
                    f"before training, so at most {limit} are accepted",
                )
            with target.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        return target

    def score(self, launcher: Launcher, dataset: Dataset) -> None:
        """Have the checkpoint scored and note what came of it."""
        from ..scoring import evaluator

        spec, values = self.spec, self.values
        self.watch.enter("score", 1.0)
        start = scorer(spec, launcher, self.directory, dataset, self.mode, on_wait=self.watch.check)
        limits: dict[str, Any] = {
            "cpu_limit_s": spec.scoring_cpu_limit_s,
            "wall_limit_s": max(1.0, self.watch.left_s),
        }
        began, audit_s = time.monotonic(), 0.0
        try:
            if spec.phase == "smoke":
                value = evaluator.rehearse(start, dataset, device=spec.device, **limits)
                values.update(score=value, score_kind="unverified")
                return
            score = evaluator.evaluate(
                start, dataset, audit=spec.audit, device=spec.device,
                champion_losses=spec.champion_losses,
                on_phase=lambda phase: self.watch.enter(phase, 1.0), **limits,
            )  # fmt: skip
            audit_s = score.seconds.get("audit", 0.0)
        except scoring.ScoringError as error:
            self.evidence.update(error.evidence)
            raise Ended(status_of(error), error.reason) from None
        finally:
            self.watch.book("score", time.monotonic() - began - audit_s)
            self.watch.book("audit", audit_s)
        layers = (values["sandbox"], score.sandbox)
        trusted = all(sandbox.Report(one).verified for one in layers)
        self.evidence.update(
            claimed_bpb=score.claimed_bpb,
            audited=score.audited,
            largest_difference_nats=score.largest_difference,
            properties=score.properties,
            scoring_cpu_s=score.cpu_seconds,
        )
        values.update(
            score=score.bpb,
            score_se=score.se,
            score_kind="trusted" if trusted else "unverified",
            hashes=dict(score.hashes),
            losses=score.save_losses(self.directory / LOSSES),
        )
