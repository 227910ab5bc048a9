"""TODO training.setup."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from .. import sandbox, scoring
from ..core.run import RunSpec, RunStatus
from ..core.text import one_line
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import Child, Job, Launcher
from .reference import materialise

if TYPE_CHECKING:
    from ..data.dataset import Dataset

CHECKPOINT = "checkpoint.safetensors"

LOSSES = "losses.f32"


def open_dataset(spec: RunSpec) -> Dataset:
    """Open the data set of a trial.

    Raises:
        LaunchFailed: There is none, with the command that makes it.
    """
    from ..data.dataset import Dataset, DatasetError

    if spec.data is None:
        raise LaunchFailed(f"trial {spec.run_id} names no data set; run: python prepare.py")
    try:
        return Dataset.open(spec.data)
    except DatasetError as error:
        raise LaunchFailed(one_line(error)) from None


def training_job(spec: RunSpec, directory: Path, dataset: Dataset, mode: sandbox.Mode) -> Job:
    """The job of a trial's training process, in its run directory."""
    work = directory / "work"
    return Job(
        "train", directory / "copy", spec.entry, work / CHECKPOINT, work,
        seed=spec.seed, threads=spec.threads, device=spec.device,
        vocab_size=dataset.vocab_size, seq_len=dataset.seq_len, hide=hidden(dataset),
        sandbox=mode, memory_limit_bytes=spec.memory_limit_bytes,
    )  # fmt: skip


def scorer(
    spec: RunSpec,
    launcher: Launcher,
    directory: Path,
    dataset: Dataset,
    mode: sandbox.Mode,
    on_wait: Callable[[], object] | None = None,
) -> Callable[[], Child]:
    """Return what starts one scoring process for the checkpoint in a run directory.

    For scoring or auditing a trial once more, too; the copy is written anew if it is gone. Each
    process gets a scratch folder of its own, which goes when it does: what one leaves behind, no
    other finds. The function returned raises LaunchFailed.

    Args:
        spec: The trial.
        launcher: Starts the processes.
        directory: The run directory.
        dataset: The trial's data set.
        mode: Sandbox mode.
        on_wait: Called several times a second while an answer is waited for; what it raises ends
            the scoring.
    """
    copy = directory / "copy"
    if not copy.exists():
        materialise(spec.files, copy)

    def start() -> Child:
        scratch = Path(tempfile.mkdtemp(prefix="scratch-", dir=directory))
        job = Job(
            "score", copy, spec.entry, directory / CHECKPOINT, scratch, discard=True,
            seed=spec.seed, threads=spec.threads, device=spec.device,
            vocab_size=dataset.vocab_size, seq_len=dataset.seq_len, hide=hidden(dataset),
            sandbox=mode, memory_limit_bytes=spec.memory_limit_bytes, capture=False,
        )  # fmt: skip
        child = launcher.start(job)
        child.on_wait = on_wait
        return child

    return start


def hidden(dataset: Dataset) -> tuple[str, ...]:
    """Files no candidate may read."""
    return tuple(str(path) for path in dataset.hidden_paths())


def status_of(error: scoring.ScoringError) -> RunStatus:
    """The status of a trial that scoring refused."""
    if isinstance(error, scoring.CheatDetected):
        return "cheat"
    return "timeout" if isinstance(error, scoring.ScoringTimeout) else "crash"
