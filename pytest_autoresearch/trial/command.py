"""Command experiments: any program that prints ``name: value``; its score is self-reported."""

from __future__ import annotations

import math
import os
import re
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from .. import sandbox
from . import Progress, TrialResult, TrialSpec
from .output import Output, one_line
from .reference import materialise

_LINE = re.compile(
    r"^(?:METRIC\s+)?([A-Za-z_][\w./µ-]*)\s*[:=]\s*"
    r"([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?|[+-]?(?:nan|inf(?:inity)?))\s*$",
    re.IGNORECASE,
)
_POLL_S = 0.05
_MAX_METRICS = 64


def parse_metrics(text: str) -> dict[str, float]:
    """Return the ``name: value`` and ``METRIC name=value`` lines; the last of a name counts."""
    found: dict[str, float] = {}
    for line in text.splitlines():
        if match := _LINE.match(line.strip()):
            found.pop(match[1], None)
            found[match[1]] = float(match[2])
    return dict(list(found.items())[-_MAX_METRICS:])


def run_command(
    spec: TrialSpec,
    root: Path,
    *,
    on_progress: Callable[[Progress], object] | None = None,
    sandbox_mode: sandbox.Mode = "auto",
    should_stop: Callable[[], bool] | None = None,
) -> TrialResult:
    """Run ``spec.command`` in a private copy and read its score from what it prints.

    Args:
        spec: What to run; its budget is told to the command, the wall limit enforces it.
        root: Folder of run directories.
        on_progress: Told that it runs, a few times a second.
        sandbox_mode: ``"require"``, ``"auto"`` or ``"off"``.
        should_stop: Asked a few times a second; once true, the trial ends ``"interrupted"``.

    Returns:
        The result; never raises for what the command does.
    """
    assert spec.command is not None
    directory = Path(root).absolute() / spec.trial_id
    began = time.monotonic()
    output = Output()
    try:
        shutil.rmtree(directory, ignore_errors=True)
        copy = directory / "copy"
        materialise(spec.files, copy)
        process = _start(spec, copy, output.write_fd, sandbox_mode)
    except (OSError, sandbox.SandboxError) as error:
        os.close(output.write_fd)
        return TrialResult("infra", one_line(error), total_seconds=time.monotonic() - began)
    os.close(output.write_fd)
    ended = ""
    try:
        while process.poll() is None and not ended:
            elapsed = time.monotonic() - began
            if elapsed > spec.wall_limit_s:
                ended = "timeout"
            elif should_stop is not None and should_stop():
                ended = "interrupted"
            elif on_progress is not None:
                share = min(1.0, elapsed / spec.budget.amount) if spec.budget.kind == "wall" else 0
                on_progress(Progress("train", share, elapsed))
            time.sleep(_POLL_S)
    finally:
        process.kill_group()
        code = process.wait()
    head, tail = output.finish()
    return _result(spec, head, tail, code, ended, time.monotonic() - began, process)


def _start(spec: TrialSpec, copy: Path, stdout: int, mode: sandbox.Mode) -> sandbox.Sandboxed:
    assert spec.command is not None
    extra = {
        "AUTORESEARCH_SEED": str(spec.seed),
        "AUTORESEARCH_BUDGET": str(spec.budget),
        "PYTHONUNBUFFERED": "1",
    }
    env = sandbox.candidate_environment(str(copy), threads=spec.threads, extra=extra)
    data = (str(spec.data),) if spec.data else ()
    policy = sandbox.Policy(read=(str(copy), *data), write=(str(copy),), cwd=str(copy), env=env)
    return sandbox.launch(
        spec.command, policy, mode, stdin=subprocess.DEVNULL, stdout=stdout, stderr=stdout
    )


def _result(
    spec: TrialSpec,
    head: str,
    tail: str,
    code: int,
    ended: str,
    seconds: float,
    process: sandbox.Sandboxed,
) -> TrialResult:
    metrics = parse_metrics(head + "\n" + tail)
    score = metrics.pop(spec.metric, None)
    status, reason = ended or "ok", ""
    if ended == "timeout":
        reason = f"still running after {spec.wall_limit_s:.0f} s"
    elif ended == "interrupted":
        reason = "stopped with the session"
    elif code != 0:
        status, reason = "crash", _last_line(tail or head) or f"exited with status {code}"
    elif score is None:
        status, reason = "crash", f"it printed no '{spec.metric}: <number>' line"
    elif not math.isfinite(score):
        status, reason = "crash", f"{spec.metric} is {score}"
    return TrialResult(
        status=status,  # type: ignore[arg-type]
        reason=one_line(reason),
        score=score if status == "ok" else None,
        score_kind="self-reported",
        train_seconds=seconds,
        total_seconds=seconds,
        exit_code=code if code >= 0 else None,
        signal=-code if code < 0 else None,
        log_head=head,
        log_tail=tail,
        metrics={k: v for k, v in metrics.items() if math.isfinite(v)},
        causes={"train": seconds},
        sandbox=dict(process.report.layers),
    )


def _last_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.strip()]
    return lines[-1].strip() if lines else ""
