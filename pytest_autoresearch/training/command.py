"""Runs of a command: execute it in a private copy and read its figures from its output.

The output is not verified, so the score is *self-reported*.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from typing import Any

from .. import sandbox
from ..core.run import Purpose
from ..core.text import one_line
from ..forkserver.client import LaunchFailed
from ..forkserver.group import Group
from ..forkserver.launch import gpu_devices
from ..forkserver.output import Output
from ..forkserver.usage import scan_groups
from .context import RunContext, write_files
from .limits import Ended, RunLimits

_POLL_S = 0.05
_SCAN_S = 0.25
_MAX_METRICS = 256

_FIGURE = re.compile(
    r"^\s*(?:METRIC\s+)?([A-Za-z_][\w./-]{0,63})\s*[:=]\s*"
    r"([-+]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf|infinity))\s*%?\s*$",
    re.IGNORECASE | re.MULTILINE,
)


def parse_figures(text: str) -> dict[str, float]:
    """Parse ``name: value``, ``name=value`` and ``METRIC name=value`` lines; the last one wins.

    Returns:
        Name to value, which may be NaN or infinite; at most 256 names, those printed last.
    """
    figures: dict[str, float] = {}
    for name, value in _FIGURE.findall(text):
        figures.pop(name, None)
        figures[name] = float(value.replace("_", "").replace(",", ""))
    return dict(list(figures.items())[-_MAX_METRICS:])


def run_command(context: RunContext) -> None:
    """Run the command in a private copy of the files and store what it printed and used.

    The command reads seed and budget from ``AUTORESEARCH_SEED`` and ``AUTORESEARCH_BUDGET``. It
    keeps the budget itself; the wall limit is enforced.

    Raises:
        Ended: It failed, exceeded a limit, or printed no finite metric.
        LaunchFailed: It could not be confined, or its program does not exist.
    """
    spec, limits = context.spec, context.limits
    if spec.purpose is Purpose.SMOKE:
        return  # an arbitrary command has no two steps
    output = Output()
    try:
        with limits.cause("start"):
            process = _start(context, output.write_fd)
    finally:
        os.close(output.write_fd)
    group = Group(process.pid, None, lambda pid: process.kill_group())
    group.memory_limit_bytes = spec.memory_limit_bytes
    group.disk_limit_bytes, group.folder = context.disk_limit(), context.directory
    began = time.monotonic()
    try:
        limits.enter("train")
        _wait(process, group, limits, spec.budget.amount if spec.budget.kind == "wall" else None)
    finally:
        process.kill_group()
        code = process.wait()
        seconds = time.monotonic() - began
        limits.book("train", seconds)
        signal = -code if code < 0 else None
        group.take_end({"code": None if signal else code, "signal": signal})
        ended = group.exit()
        head, tail = output.finish()
        context.result = replace(
            context.result,
            sandbox=dict(process.report.layers),
            score_kind="self-reported",
            train_seconds=seconds,
            cpu_seconds=ended.cpu_seconds,
            peak_memory_bytes=ended.peak_memory_bytes,
            log_head=head,
            log_tail=tail,
        )
        shutil.rmtree(context.work, ignore_errors=True)
    context.result = replace(context.result, exit_code=ended.code, signal=ended.signal)
    if ended.over_limit:
        raise Ended("guard", f"the command was {ended.describe()}")
    if ended.code != 0:
        lines = (head + tail).strip().splitlines() or ["it printed nothing"]
        was = "was " if ended.signal is not None else ""
        reason = f"the command {was}{ended.describe()}: {lines[-1]}"
        raise Ended("guard" if spec.purpose is Purpose.CHECK else "crash", reason)
    if spec.purpose is not Purpose.CHECK:
        _take_figures(context, parse_figures(f"{head}\n{tail}"))


def _start(context: RunContext, stdout: int) -> sandbox.Sandboxed:
    shutil.rmtree(context.directory, ignore_errors=True)
    write_files(context.spec.files, context.copy, context.spec.modes)
    context.work.mkdir()
    command = context.spec.command or ()
    try:
        return sandbox.launch(
            command, _policy(context), context.sandbox_mode, stdout=stdout, stderr=stdout
        )
    except sandbox.SandboxError as error:
        raise LaunchFailed(one_line(error)) from None


def _policy(context: RunContext) -> sandbox.Policy:
    spec, home = context.spec, str(context.work)
    gpu = spec.device == "cuda"
    cuda = os.environ.get("CUDA_VISIBLE_DEVICES") if gpu else None
    data = () if spec.data is None else (str(spec.data.absolute()),)
    extra = {
        "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""))),
        "PYTHONUNBUFFERED": "1",  # keeps the output of a command that is killed
        "AUTORESEARCH_SEED": str(spec.seed),
        "AUTORESEARCH_STREAM": str(spec.stream),
        "AUTORESEARCH_BUDGET": str(spec.budget),
        **({"AUTORESEARCH_DATA": data[0]} if data else {}),
    }
    return sandbox.Policy(
        read=data,
        write=(str(context.copy), home),
        devices=gpu_devices(cuda) if gpu else (),
        gpu=gpu,
        env=sandbox.candidate_environment(
            home, threads=spec.threads, cuda_devices=cuda, extra=extra
        ),
        cwd=str(context.copy),
    )


def _wait(
    process: subprocess.Popen[Any], group: Group, limits: RunLimits, budget_s: float | None
) -> None:
    began, scanned = time.monotonic(), 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
            return
        now = time.monotonic()
        limits.check()
        limits.show(0.0 if budget_s is None else min(1.0, (now - began) / budget_s))
        if now - scanned > _SCAN_S:
            group.take_scan(scan_groups([group.pid])[group.pid])
            scanned = now


def _take_figures(context: RunContext, figures: dict[str, float]) -> None:
    metric = context.spec.metric
    score = figures.pop(metric, None)
    finite = {name: value for name, value in figures.items() if math.isfinite(value)}
    context.result = replace(context.result, metrics=finite)
    if score is None:
        raise Ended("crash", f"the command printed no line '{metric}: <number>'")
    if not math.isfinite(score):
        raise Ended("crash", f"the command printed {metric}: {score}")
    context.result = replace(context.result, score=score)
