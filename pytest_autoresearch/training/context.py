"""State that the steps of one run share."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from .. import sandbox, scoring
from ..core.run import Run, RunSpec, RunStatus
from ..core.text import one_line
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import Child, Job, Launcher
from .limits import Ended, RunLimits

if TYPE_CHECKING:
    from ..data.dataset import Dataset
    from ..scoring.evaluator import Score

CHECKPOINT = "checkpoint.safetensors"

LOSSES = "losses.f32"

_FILE_BYTES = 1 << 30
"""Largest file of a candidate whose checkpoint has to be smaller."""


@dataclass
class RunContext:
    """One run while it is under way.

    Attributes:
        spec: What to run.
        directory: Run directory.
        launcher: Starts the processes, and keeps the reference between runs.
        sandbox_mode: ``"require"``, ``"auto"`` or ``"off"``.
        limits: Hard limits, seconds by cause, and progress.
        result: Fields known so far.
    """

    spec: RunSpec
    directory: Path
    launcher: Launcher
    sandbox_mode: sandbox.Mode
    limits: RunLimits
    result: Run = field(default_factory=Run)

    @property
    def copy(self) -> Path:
        """Candidate's private copy of the files."""
        return self.directory / "copy"

    @property
    def work(self) -> Path:
        """Only folder that the candidate may write to."""
        return self.directory / "work"

    @cached_property
    def dataset(self) -> Dataset:
        """Data set of the run.

        Raises:
            LaunchFailed: It does not exist; names the command that makes it.
        """
        from ..data.dataset import Dataset, DatasetError

        if self.spec.data is None:
            raise LaunchFailed(f"run {self.spec.run_id} has no data set; run: python prepare.py")
        try:
            return Dataset.open(self.spec.data)
        except DatasetError as error:
            raise LaunchFailed(one_line(error)) from None

    def job(self, phase: Literal["train", "score"], checkpoint: Path, writable: Path) -> Job:
        """Describe a confined process that trains or scores the candidate."""
        spec, dataset = self.spec, self.dataset
        return Job(
            phase, self.copy, spec.entry, checkpoint, writable, discard=phase == "score",
            seed=spec.random_seed, threads=spec.threads, device=spec.device,
            vocab_size=dataset.vocab_size, seq_len=dataset.seq_len,
            hide=tuple(map(str, dataset.hidden_paths())), sandbox=self.sandbox_mode,
            memory_limit_bytes=spec.memory_limit_bytes, disk_limit_bytes=self.disk_limit(),
            file_bytes=max(_FILE_BYTES, spec.checkpoint_limit_bytes or 8 << 30),
            capture=phase == "train",
        )  # fmt: skip

    def disk_limit(self) -> int:
        """Return the bytes that the candidate may write; most of the free disk at most."""
        free = shutil.disk_usage(self.directory).free
        return min(self.spec.disk_limit_bytes, max(free - _FILE_BYTES, free // 2))

    def start_scorer(self) -> Child:
        """Start one scoring process on the checkpoint in the run directory.

        Each process gets its own scratch folder, removed when it ends: processes cannot leave
        anything for each other.

        Raises:
            LaunchFailed: It could not be started.
        """
        if not self.copy.exists():
            write_files(self.spec.files, self.copy)
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=self.directory))
        child = self.launcher.start(self.job("score", self.directory / CHECKPOINT, scratch))
        child.on_wait = self.limits.check
        return child

    @property
    def scoring_wall_s(self) -> float:
        """Wall seconds left for scoring."""
        return max(1.0, self.limits.left_s)

    def enter_phase(self, phase: str) -> None:
        """Begin a phase after training."""
        self.limits.enter(phase, 1.0)

    @contextlib.contextmanager
    def scoring_errors(self) -> Iterator[None]:
        """End the run with a verdict on the candidate if its answers cannot be scored.

        Whatever is raised while its data are looked at is caused by them.

        Raises:
            Ended: The score is refused.
        """
        try:
            yield
        except scoring.ScoringError as error:
            self.add_evidence(error.evidence)
            raise Ended(_status(error), error.reason) from None
        except (Ended, LaunchFailed, OSError, MemoryError):
            raise
        except Exception as error:
            reason = f"the model's answers cannot be scored: {type(error).__name__}: {error}"
            raise Ended("crash", reason) from error

    def add_evidence(self, evidence: Mapping[str, object]) -> None:
        """Add to the evidence of the result."""
        self.result = replace(self.result, evidence={**self.result.evidence, **evidence})

    def take_score(self, score: Score, *layers: Mapping[str, str]) -> None:
        """Store a score and its evidence.

        Args:
            score: The score.
            layers: Sandbox reports of the processes behind it; it is trusted if all are verified.
        """
        reports = [sandbox.Report(report) for report in (*layers, score.sandbox)]
        lacking = sorted({what for report in reports for what in report.lacking})
        self.result = replace(
            self.result,
            score=score.bpb,
            score_se=score.se,
            score_kind="unverified" if lacking else "trusted",
            hashes=dict(score.hashes),
        )
        self.add_evidence(
            {
                "claimed_bpb": score.claimed_bpb,
                "audited": score.audited,
                "largest_difference_nats": score.largest_difference,
                "worst_token_nats": score.worst_token,
                **({"nothing_confines": lacking} if lacking else {}),
            }
        )


def _status(error: scoring.ScoringError) -> RunStatus:
    if isinstance(error, scoring.CheatDetected):
        return "cheat"
    return "timeout" if isinstance(error, scoring.ScoringTimeout) else "crash"


def write_files(
    files: Mapping[str, bytes], directory: Path, modes: Mapping[str, str] | None = None
) -> None:
    """Write `files` into a new folder; files that begin with ``#!`` are made executable.

    Args:
        files: Path to contents; of a symbolic link, its target.
        directory: The folder.
        modes: Path to git's mode, of executable files and symbolic links.

    Raises:
        ValueError: A path leaves the folder.
        OSError: They cannot be written.
    """
    directory.mkdir(parents=True)
    for name, content in files.items():
        path = directory / name
        if not path.resolve().is_relative_to(directory.resolve()):
            raise ValueError(f"the file {name} lies outside of the candidate's folder")
        path.parent.mkdir(parents=True, exist_ok=True)
        mode = modes.get(name) if modes else None
        if mode == "120000":
            path.symlink_to(os.fsdecode(content))
            continue
        path.write_bytes(content)
        if mode == "100755" or content.startswith(b"#!"):
            path.chmod(0o755)
