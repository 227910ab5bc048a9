"""One run of a candidate: trained and scored, scored again, or a command."""

from __future__ import annotations

import time
import warnings
from dataclasses import replace
from pathlib import Path

from .. import sandbox
from ..core.run import Run, RunSpec, RunStatus
from ..core.text import one_line
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import Launcher
from .context import RunContext
from .limits import Ended, OnProgress, RunLimits, ShouldStop


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
        root: Folder of run directories; ``root / spec.run_id`` is replaced.
        on_progress: Called with the progress, a few times a second.
        sandbox_mode: ``"require"``, ``"auto"`` or ``"off"``.
        should_stop: Polled a few times a second; once true, the run ends ``"interrupted"``.

    Returns:
        The result, whatever the candidate does. Only exceptions such as KeyboardInterrupt
        propagate, and leave no process behind.
    """
    limits = RunLimits(spec.wall_limit_s, on_progress, should_stop, watch_gpu=spec.device == "cuda")
    context = RunContext(spec, Path(root).absolute() / spec.run_id, launcher, sandbox_mode, limits)
    status: RunStatus = "ok"
    reason = ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("default")  # the user's filters must not end a run
            _steps(context)
    except Ended as ended:
        status, reason = ended.status, ended.reason
    except LaunchFailed as error:
        status, reason = "infra", one_line(error)
    except (OSError, ValueError) as error:
        # only the harness's own steps raise these: unwritable files, missing data
        status, reason = "infra", one_line(f"{type(error).__name__}: {error}")
    result = context.result
    if status != "ok":
        result = replace(result, score=None, score_se=None)
    total = time.monotonic() - limits.began
    limits.book("other", max(0.0, total - sum(limits.causes.values())))
    return replace(
        result, status=status, reason=reason, total_seconds=total, causes=dict(limits.causes)
    )


def _steps(context: RunContext) -> None:
    # imported when needed: a command needs no numpy
    if context.spec.command is not None:
        from .command import run_command

        run_command(context)
    elif context.spec.from_checkpoint:
        from .rescore import rescore

        rescore(context)
    else:
        from .contract import TrainingRun

        TrainingRun(context).run()
