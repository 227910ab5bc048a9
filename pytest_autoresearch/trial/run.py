"""One trial: private copy, sandboxed training under an outside clock, checkpoint, score.

Never raises for the candidate: whatever it does becomes a `TrialResult`.
"""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import stat
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import sandbox, scoring
from . import Progress, TrialResult, TrialSpec, TrialStatus
from .clock import BudgetTooSmall, Clock, EqualWorkClock, StepClock, WallClock, WorkClock
from .feed import BatchRequest, Feed
from .launch import Child, ChildGone, ChildTimeout, Exit, Job, LaunchFailed, Launcher, ProtocolError
from .output import one_line
from .reference import Reference, fingerprint, materialise

if TYPE_CHECKING:
    from ..scoring.dataset import Dataset

SMOKE_STEPS = 2
_POLL_S = 0.2
_SHOW_S = 0.25
_CURVE_POINTS = 512
_SAVE_CPU_S, _SAVE_CPU_S_PER_BYTE = 0.5, 4.0 / 2**30
_SAVE_WALL_S, _SAVE_WALL_S_PER_BYTE = 2.0, 1.0 / 200e6
_MAX_BYTES = 1 << 40
_MAX_METRICS = 64

OnProgress = Callable[[Progress], object]
ShouldStop = Callable[[], bool]


class Ended(Exception):
    """The trial is over without a score."""

    def __init__(self, status: TrialStatus, reason: str) -> None:
        super().__init__(reason)
        self.status = status
        self.reason = one_line(reason)


def run_trial(
    spec: TrialSpec,
    launcher: Launcher,
    root: Path,
    *,
    on_progress: OnProgress | None = None,
    sandbox_mode: sandbox.Mode = "auto",
    should_stop: ShouldStop | None = None,
) -> TrialResult:
    """Train and score one candidate.

    Args:
        spec: What to run.
        launcher: Starts the processes.
        root: Folder of run directories; this trial's is ``root / spec.trial_id``, made anew.
        on_progress: Told where the trial is, a few times a second.
        sandbox_mode: ``"require"``, ``"auto"`` or ``"off"``.
        should_stop: Asked a few times a second; once true, the trial ends ``"interrupted"``.

    Returns:
        The result, whatever the candidate does. Only KeyboardInterrupt and the like pass through,
        and leave no process behind.
    """
    if spec.command is not None:
        from .command import run_command

        return run_command(
            spec, root, on_progress=on_progress, sandbox_mode=sandbox_mode, should_stop=should_stop
        )
    directory = Path(root).absolute() / spec.trial_id
    record = _Record()
    try:
        with launcher.trial() as used, contextlib.closing(_Trial(spec, directory, record)) as trial:
            trial.on_progress, trial.should_stop = on_progress, should_stop
            trial.run(used, launcher, sandbox_mode)
    except Ended as ended:
        record.status, record.reason = ended.status, ended.reason
    except LaunchFailed as error:
        record.status, record.reason = "infra", one_line(error)
    except (OSError, ValueError) as error:
        # Only the harness's own steps get here: files that cannot be written, data that is gone.
        record.status, record.reason = "infra", one_line(f"{type(error).__name__}: {error}")
    return record.result()


@dataclass
class _Record:
    """A `TrialResult` in the making."""

    status: TrialStatus = "ok"
    reason: str = ""
    began: float = field(default_factory=time.monotonic)
    causes: dict[str, float] = field(default_factory=dict)
    curve: list[tuple[float, float]] = field(default_factory=list)
    values: dict[str, Any] = field(default_factory=dict)
    evidence: dict[str, object] = field(default_factory=dict)

    @contextlib.contextmanager
    def cause(self, name: str) -> Iterator[None]:
        began = time.monotonic()
        try:
            yield
        finally:
            self.causes[name] = self.causes.get(name, 0.0) + time.monotonic() - began

    def note_loss(self, fraction: float, loss: float) -> None:
        """Add a point to the curve; thinned evenly once it is long."""
        self.curve.append((fraction, loss))
        if len(self.curve) > 2 * _CURVE_POINTS:
            self.curve = self.curve[::2]

    def result(self) -> TrialResult:
        total = time.monotonic() - self.began
        rest = max(0.0, total - sum(self.causes.values()))
        ok = self.status == "ok"
        values = self.values if ok else {**self.values, "score": None, "score_se": None}
        return TrialResult(
            status=self.status,
            reason=self.reason,
            total_seconds=total,
            curve=tuple(self.curve),
            causes={**self.causes, "other": self.causes.get("other", 0.0) + rest},
            evidence=self.evidence,
            **values,
        )


class _Trial:
    """The steps of one trial; each raises `Ended` if it is the last."""

    on_progress: OnProgress | None = None
    should_stop: ShouldStop | None = None

    def __init__(self, spec: TrialSpec, directory: Path, record: _Record) -> None:
        self.spec = spec
        self.directory = directory
        self.record = record
        self.deadline = record.began + spec.wall_limit_s
        self.phase, self.phase_began, self.shown = "start", record.began, 0.0
        self.loss: float | None = None
        self.feed: Feed | None = None

    def close(self) -> None:
        """Give the feed's memory back and remove what only the training process needed."""
        if self.feed is not None:
            self.feed.close()
        shutil.rmtree(self.directory / "work", ignore_errors=True)

    def run(self, launcher: Launcher, keeper: Launcher, mode: sandbox.Mode) -> None:
        """Do everything; `keeper` holds the reference across trials."""
        from ..scoring.dataset import Dataset, DatasetError

        if self.spec.data is None:
            raise LaunchFailed(f"trial {self.spec.trial_id} names no data set; run prepare.py")
        try:
            dataset = Dataset.open(self.spec.data)
        except DatasetError as error:
            raise LaunchFailed(one_line(error)) from None
        with self.record.cause("start"):
            shutil.rmtree(self.directory, ignore_errors=True)
            materialise(self.spec.files, self.directory / "copy")
            (self.directory / "work").mkdir()
            child = launcher.start(training_job(self.spec, self.directory, dataset, mode))
        try:
            size = self.train(child, dataset, keeper, mode)
        finally:
            self.end(child)
        with self.record.cause("save"):
            self.collect(size)
        self.score(launcher, dataset, mode)

    # Training

    def train(
        self, child: Child, dataset: Dataset, keeper: Launcher, mode: sandbox.Mode
    ) -> int:
        """From the start of the process to its word that it has saved; returns declared bytes."""
        self.record.values["sandbox"] = dict(child.report)
        with self.record.cause("start"):
            ready = self.startup_message(child, "ready")
            self.record.values["parameters"] = _count(ready, "parameters")
            size = _count(ready, "bytes")
            self.feed = Feed(dataset.tokens("train"), self.spec.seed)
            clock = self.clock(child, dataset, keeper, mode)
            self.tell(child, {"type": "go"}, [self.feed.fd])
            message = self.startup_message(child, "batch")
        self.enter("train")
        began, cpu_began = time.monotonic(), child.cpu_seconds()
        try:
            clock.begin()
            self.serve(child, clock, message)
        finally:
            train_seconds = time.monotonic() - began
            facts = clock.facts()
            paused = facts.get("reference_wall_s", 0.0)
            self.record.causes["train"] = train_seconds - paused
            if facts:
                self.record.causes["reference"] = paused
                self.record.evidence["clock"] = facts
            self.record.values.update(
                train_seconds=train_seconds,
                cpu_seconds=child.cpu_seconds() - cpu_began,
                work=float(self.feed.tokens),
                steps=self.feed.steps,
            )
        with self.record.cause("save"):
            done = self.saved(child, size)
        metrics = _metrics(done.get("metrics"))
        memory = metrics.pop("device_memory_bytes", None)
        if memory is not None and self.spec.device == "cuda":
            self.record.values["peak_memory_bytes"] = int(memory)
        self.record.values["metrics"] = metrics
        return size

    def clock(
        self, child: Child, dataset: Dataset, keeper: Launcher, mode: sandbox.Mode
    ) -> Clock:
        """The clock of the budget."""
        budget = self.spec.budget
        if self.spec.phase == "smoke":
            return StepClock(SMOKE_STEPS)
        if budget.kind == "wall":
            return WallClock(budget.amount)
        if budget.kind == "work":
            return WorkClock(budget.amount)
        files = self.spec.reference_files
        if files is None:
            raise LaunchFailed(f"a budget of {budget} needs the baseline's files as a reference")

        def make() -> Reference:
            return Reference(
                keeper, files, self.spec.entry, dataset.tokens("train"),
                vocab_size=dataset.vocab_size, seq_len=dataset.seq_len,
                threads=self.spec.threads, hide=_hidden(dataset), sandbox=mode,
            )  # fmt: skip

        key = (fingerprint(files), self.spec.entry, dataset.sha256, self.spec.threads, mode)
        with self.record.cause("other"):
            reference = keeper.keep("reference", key, make)

        @contextlib.contextmanager
        def stopped() -> Iterator[None]:
            child.pause()
            try:
                yield
            finally:
                child.resume()

        def burst(progress: float) -> Any:
            try:
                return reference.burst(progress)
            except LaunchFailed:
                keeper.drop("reference")
                raise

        return EqualWorkClock(budget.amount, child.cpu_seconds, burst, stopped)

    def serve(self, child: Child, clock: Clock, message: Mapping[str, Any]) -> None:
        """Answer requests for batches until the budget has ended and the candidate knows it."""
        assert self.feed is not None
        while True:
            try:
                request = BatchRequest.parse(message)
                self.note(request.loss, clock.progress)
                progress = clock.progress
                if not clock.admit(request.tokens):
                    self.tell(child, {"type": "end"})
                    return
                answer = self.feed.hand_out(request)
            except (ProtocolError, BudgetTooSmall) as error:
                raise Ended("crash", f"the training process {error}") from None
            self.tell(child, {**answer, "progress": progress})
            message = self.message(child, lambda: self.tick(clock), clock.poll_seconds)
            if message.get("type") == "done":
                self.early = message
                return

    early: Mapping[str, Any] | None = None
    """The word that training is over, if it came before the end of the budget."""

    def tick(self, clock: Clock) -> None:
        """Between two batches."""
        clock.poll()
        self.show(clock.progress)
        if clock.overdue:
            raise Ended(
                "timeout",
                "train() did not come back for a batch when the budget ended; it must train only "
                "inside its loop over batches",
            )

    def saved(self, child: Child, size: int) -> Mapping[str, Any]:
        """Wait until the checkpoint is written, with little time for anything else."""
        if self.early is not None:
            return self.early
        began, cpu_began = time.monotonic(), child.cpu_seconds()
        cpu_limit = _SAVE_CPU_S + size * _SAVE_CPU_S_PER_BYTE
        wall_limit = _SAVE_WALL_S + size * _SAVE_WALL_S_PER_BYTE

        def check() -> None:
            spent = child.cpu_seconds() - cpu_began
            late = self.spec.budget.kind == "wall" and time.monotonic() - began > wall_limit
            if spent > cpu_limit or late:
                raise Ended(
                    "timeout",
                    f"train() went on after its budget had ended ({spent:.1f} CPU seconds)",
                )

        while True:
            message = self.message(child, check, 0.02)
            if message.get("type") == "done":
                check()
                return message
            if message.get("type") != "batch":
                raise Ended("crash", "the training process sent a message out of turn")
            self.tell(child, {"type": "end"})

    def end(self, child: Child) -> None:
        """Kill what is left of the training processes and keep what they printed."""
        ended: Exit = child.kill()
        head, tail = child.log()
        values = self.record.values
        values.setdefault("peak_memory_bytes", ended.peak_memory_bytes)
        values.update(log_head=head, log_tail=tail)
        if not ended.stopped:
            values.update(exit_code=ended.code, signal=ended.signal)

    def collect(self, size: int) -> None:
        """Take the checkpoint out of the candidate's hands, if it is one file of a fair size."""
        source = self.directory / "work" / "checkpoint.safetensors"
        limit = size + size // 10 + (64 << 10)
        try:
            fd = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
        except OSError as error:
            raise Ended("crash", f"no checkpoint: {os.strerror(error.errno or 0)}") from None
        with os.fdopen(fd, "rb") as file:
            found = os.fstat(fd)
            if not stat.S_ISREG(found.st_mode) or found.st_size > limit:
                raise Ended(
                    "crash",
                    f"the checkpoint holds {found.st_size} bytes; the model declared {size} "
                    f"before training, so at most {limit} are accepted",
                )
            target = self.directory / "checkpoint.safetensors"
            with target.open("wb") as copy:
                shutil.copyfileobj(file, copy, 1 << 20)
        self.record.values["checkpoint"] = target

    # Scoring

    def score(self, launcher: Launcher, dataset: Dataset, mode: sandbox.Mode) -> None:
        """Have the checkpoint scored and note what came of it."""
        from ..scoring import evaluator

        self.enter("score")
        self.check()
        start = scorer(self.spec, launcher, self.directory, dataset, mode)
        left = max(1.0, self.deadline - time.monotonic())
        limits = {"cpu_limit_s": self.spec.scoring_cpu_limit_s, "wall_limit_s": left}
        began = time.monotonic()
        audit_s = 0.0
        try:
            if self.spec.phase == "smoke":
                value = evaluator.rehearse(start, dataset, device=self.spec.device, **limits)
                self.record.values.update(score=value, score_kind="unverified")
                return
            score = evaluator.evaluate(
                start, dataset, audit=self.spec.audit, device=self.spec.device,
                champion_losses=self.spec.champion_losses, on_phase=self.enter, **limits,
            )  # fmt: skip
            audit_s = score.seconds.get("audit", 0.0)
        except scoring.ScoringError as error:
            self.record.evidence.update(error.evidence)
            raise Ended(_scoring_status(error), error.reason) from None
        finally:
            self.record.causes["score"] = time.monotonic() - began - audit_s
            self.record.causes["audit"] = audit_s
        layers = (self.record.values["sandbox"], score.sandbox)
        trusted = all(sandbox.Report(one).verified for one in layers)
        self.record.evidence.update(
            claimed_bpb=score.claimed_bpb,
            audited=score.audited,
            largest_difference_nats=score.largest_difference,
            properties=score.properties,
            scoring_cpu_s=score.cpu_seconds,
        )
        self.record.values.update(
            score=score.bpb,
            score_se=score.se,
            score_kind="trusted" if trusted else "unverified",
            hashes=dict(score.hashes),
            losses=score.save_losses(self.directory / "losses.f32"),
        )

    # Talking to the child

    def startup_message(self, child: Child, kind: str) -> Mapping[str, Any]:
        """Wait for a message of the start-up, whose CPU seconds are bounded."""

        def check() -> None:
            self.show(0.0)
            if child.cpu_seconds() > self.spec.startup_limit_s:
                raise Ended(
                    "timeout",
                    f"start-up took more than {self.spec.startup_limit_s:g} CPU seconds before "
                    "the first batch was asked for",
                )

        message = self.message(child, check, _POLL_S)
        if message.get("type") == "done":
            raise Ended("crash", "train() returned without asking for a batch")
        if message.get("type") != kind:
            raise Ended("crash", f"the training process sent no {kind!r} message when one was due")
        return message

    def message(self, child: Child, tick: Callable[[], None], poll_s: float) -> Mapping[str, Any]:
        """Return the next message; meanwhile call `tick` and see to limits and interruption."""
        while True:
            try:
                message = child.receive(poll_s)
            except ChildTimeout:
                self.check()
                tick()
                continue
            except ChildGone as gone:
                raise self.gone(gone.exit) from None
            except ProtocolError as error:
                raise Ended("crash", f"the training process broke the protocol: {error}") from None
            self.check()
            tick()
            if message.get("type") == "error":
                raise self.error(message.get("error"))
            return message

    def tell(self, child: Child, message: Mapping[str, object], fds: list[int] | None = None) -> None:
        """Send a message."""
        try:
            child.send(message, fds or ())
        except ChildGone as gone:
            raise self.gone(gone.exit) from None

    def gone(self, ended: Exit) -> Ended:
        """The child ended before its time."""
        if ended.stopped in ("memory", "processes"):
            return Ended("guard", f"the training process was {ended.describe()}")
        hint = " (out of memory, perhaps)" if ended.signal == 9 else ""
        return Ended("crash", f"the training process {_was(ended)}{ended.describe()}{hint}")

    def error(self, text: object) -> Exception:
        """The child reported an exception."""
        free = shutil.disk_usage(self.directory).free
        if os.strerror(errno.ENOSPC) in str(text) and free < 64 << 20:
            return LaunchFailed(f"no space is left in {self.directory}: free some")
        return Ended("crash", one_line(text) or "train.py failed without a message")

    # Watching

    def enter(self, phase: str) -> None:
        """Begin a phase."""
        self.phase, self.phase_began, self.shown = phase, time.monotonic(), 0.0
        self.check()
        self.show(1.0 if phase in ("score", "audit") else 0.0)

    def check(self) -> None:
        """End the trial if it must."""
        if self.should_stop is not None and self.should_stop():
            raise Ended("interrupted", "stopped from outside")
        if time.monotonic() > self.deadline:
            raise Ended("timeout", f"over its limit of {self.spec.wall_limit_s:g} s in all")

    def note(self, loss: float | None, fraction: float) -> None:
        """Take in a reported loss."""
        if loss is None:
            return
        if not math.isfinite(loss):
            steps = self.feed.steps if self.feed else 0
            raise Ended("crash", f"the training loss became {loss} after {steps} steps")
        self.loss = loss
        self.record.note_loss(fraction, loss)

    def show(self, fraction: float) -> None:
        """Tell whoever watches, not too often."""
        now = time.monotonic()
        if self.on_progress is None or now - self.shown < _SHOW_S:
            return
        self.shown = now
        work = float(self.feed.tokens) if self.feed else 0.0
        self.on_progress(
            Progress(self.phase, fraction, now - self.phase_began, self.loss, work)
        )


def training_job(spec: TrialSpec, directory: Path, dataset: Dataset, mode: sandbox.Mode) -> Job:
    """The job of a trial's training process, in its run directory."""
    work = directory / "work"
    return Job(
        "train", directory / "copy", spec.entry, work / "checkpoint.safetensors", work,
        seed=spec.seed, threads=spec.threads, device=spec.device,
        vocab_size=dataset.vocab_size, seq_len=dataset.seq_len, hide=_hidden(dataset),
        sandbox=mode, memory_limit_bytes=spec.memory_limit_bytes,
    )  # fmt: skip


def scorer(
    spec: TrialSpec, launcher: Launcher, directory: Path, dataset: Dataset, mode: sandbox.Mode
) -> Callable[[], Child]:
    """Return what starts one scoring process for the checkpoint in a run directory.

    Use it to score or audit a trial again; the copy is written anew if it is gone. The returned
    function raises LaunchFailed.
    """
    copy = directory / "copy"
    if not copy.exists():
        materialise(spec.files, copy)
    job = Job(
        "score", copy, spec.entry, directory / "checkpoint.safetensors", None,
        seed=spec.seed, threads=spec.threads, device=spec.device,
        vocab_size=dataset.vocab_size, seq_len=dataset.seq_len, hide=_hidden(dataset),
        sandbox=mode, memory_limit_bytes=spec.memory_limit_bytes, capture=False,
    )  # fmt: skip
    return lambda: launcher.start(job)


def _hidden(dataset: Dataset) -> tuple[str, ...]:
    return tuple(str(path) for path in dataset.hidden_paths())


def _scoring_status(error: scoring.ScoringError) -> TrialStatus:
    if isinstance(error, scoring.CheatDetected):
        return "cheat"
    return "timeout" if isinstance(error, scoring.ScoringTimeout) else "crash"


def _was(ended: Exit) -> str:
    return "was " if ended.signal is not None else ""


def _count(message: Mapping[str, Any], name: str) -> int:
    value = message.get(name)
    if type(value) is not int or not 0 <= value <= _MAX_BYTES:
        raise Ended("crash", f"the training process declared no sensible number of {name}")
    return value


def _metrics(found: object) -> dict[str, float]:
    """Figures a candidate reports of itself: finite numbers under short names; the rest goes."""
    kept: dict[str, float] = {}
    for name, value in list(found.items())[:_MAX_METRICS] if isinstance(found, dict) else ():
        if type(value) in (int, float) and name.isidentifier() and len(name) <= 64:
            with contextlib.suppress(OverflowError):
                if math.isfinite(number := float(value)):
                    kept[name] = number
    return kept
