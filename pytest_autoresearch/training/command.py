"""Trials that are a command: run it in the private copy, read its figures from what it prints.

What it prints of itself is believed, so its score is *self-reported*.
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
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from .. import sandbox
from ..core.run import RunSpec, RunStatus
from ..core.text import one_line
from ..forkserver.client import LaunchFailed
from ..forkserver.group import Group
from ..forkserver.launch import gpu_devices
from ..forkserver.output import Output
from ..forkserver.usage import scan_groups
from .limits import Ended, Watch
from .reference import materialise

_POLL_S = 0.05

_SCAN_S = 0.25

_MAX_METRICS = 256

_FIGURE = re.compile(
    r"^\s*(?:METRIC\s+)?([A-Za-z_][\w./-]{0,63})\s*[:=]\s*"
    r"([-+]?(?:\d[\d_,]*\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf|infinity))\s*%?\s*$",
    re.IGNORECASE | re.MULTILINE,
)


def parse_figures(text: str) -> dict[str, float]:
    """Read ``name: value``, ``name=value`` and ``METRIC name=value`` lines; the last one wins.

    Returns:
        Name to value, which may be NaN or infinite; at most 256 names, those printed last.
    """
    found: dict[str, float] = {}
    for name, value in _FIGURE.findall(text):
        found.pop(name, None)
        found[name] = float(value.replace("_", "").replace(",", ""))
    return dict(list(found.items())[-_MAX_METRICS:])


def run_command(
    spec: RunSpec, directory: Path, watch: Watch, values: dict[str, Any], mode: sandbox.Mode
) -> None:
    """Run the command of `spec` in a private copy, and fill `values` with what came of it.

    It finds seed and budget in ``AUTORESEARCH_SEED`` and ``AUTORESEARCH_BUDGET``. The budget is
    its own affair; the wall limit is enforced.

    Args:
        spec: What to run.
        directory: Run directory, made anew.
        watch: Limits and onlookers.
        values: Receives fields of the result.
        mode: Confinement.

    Raises:
        Ended: It failed, ran too long, or printed no finite metric.
        LaunchFailed: It could not be confined, or its program does not exist.
    """
    if spec.phase == "smoke":
        return  # two steps of an arbitrary command do not exist
    home = directory / "work"
    output = Output()
    try:
        with watch.cause("start"):
            process = _start(spec, directory / "copy", home, output.write_fd, mode)
    finally:
        os.close(output.write_fd)
    watch.folder = directory
    values.update(sandbox=dict(process.report.layers), score_kind="self-reported")
    group = Group(process.pid, None, lambda pid: process.kill_group())
    group.memory_limit_bytes = spec.memory_limit_bytes
    began = time.monotonic()
    try:
        watch.enter("train")
        _wait(process, group, watch, spec.budget.amount if spec.budget.kind == "wall" else None)
    finally:
        process.kill_group()
        process.wait()
        seconds = time.monotonic() - began
        watch.book("train", seconds)
        group.take_end(_end(process.returncode))
        ended = group.exit()
        head, tail = output.finish()
        values.update(
            train_seconds=seconds,
            cpu_seconds=ended.cpu_seconds,
            peak_memory_bytes=ended.peak_memory_bytes,
            log_head=head,
            log_tail=tail,
        )
        shutil.rmtree(home, ignore_errors=True)
    values.update(exit_code=ended.code, signal=ended.signal)
    if ended.stopped:
        raise Ended("guard", f"the command was {ended.describe()}")
    if spec.phase == "check" and ended.code == 0:
        return
    if ended.code != 0:
        lines = (head + tail).strip().splitlines() or ["it printed nothing"]
        was = "was " if ended.signal is not None else ""
        status: RunStatus = "guard" if spec.phase == "check" else "crash"
        raise Ended(status, f"the command {was}{ended.describe()}: {lines[-1]}")
    _take_figures(spec.metric, parse_figures(f"{head}\n{tail}"), values)


def _start(
    spec: RunSpec, copy: Path, home: Path, stdout: int, mode: sandbox.Mode
) -> sandbox.Sandboxed:
    shutil.rmtree(copy.parent, ignore_errors=True)
    materialise(spec.files, copy)
    home.mkdir()
    try:
        return sandbox.launch(
            spec.command or (), _policy(spec, copy, home), mode, stdout=stdout, stderr=stdout
        )
    except sandbox.SandboxError as error:
        raise LaunchFailed(one_line(error)) from None


def _policy(spec: RunSpec, copy: Path, home: Path) -> sandbox.Policy:
    cuda = os.environ.get("CUDA_VISIBLE_DEVICES") if spec.device == "cuda" else None
    extra = {
        "PATH": os.pathsep.join((os.path.dirname(sys.executable), os.environ.get("PATH", ""))),
        "PYTHONUNBUFFERED": "1",  # what was printed before a kill is worth reading
        "AUTORESEARCH_SEED": str(spec.seed),
        "AUTORESEARCH_BUDGET": str(spec.budget),
    }
    if spec.data is not None:
        extra["AUTORESEARCH_DATA"] = str(spec.data.absolute())
    return sandbox.Policy(
        read=() if spec.data is None else (str(spec.data.absolute()),),
        write=(str(copy), str(home)),
        devices=gpu_devices(cuda) if spec.device == "cuda" else (),
        gpu=spec.device == "cuda",
        env=sandbox.candidate_environment(
            str(home), threads=spec.threads, cuda_devices=cuda, extra=extra
        ),
        cwd=str(copy),
    )


def _wait(
    process: subprocess.Popen[Any], group: Group, watch: Watch, budget_s: float | None
) -> None:
    began, scanned = time.monotonic(), 0.0
    while True:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_POLL_S)
            return
        now = time.monotonic()
        watch.check()
        watch.show(0.0 if budget_s is None else min(1.0, (now - began) / budget_s))
        if sys.platform == "linux" and now - scanned > _SCAN_S:
            group.take_scan(scan_groups([group.pid])[group.pid])
            scanned = now


def _end(returncode: int) -> Mapping[str, int | None]:
    return {
        "code": returncode if returncode >= 0 else None,
        "signal": -returncode if returncode < 0 else None,
    }


def _take_figures(metric: str, figures: dict[str, float], values: dict[str, Any]) -> None:
    score = figures.pop(metric, None)
    values["metrics"] = {name: value for name, value in figures.items() if math.isfinite(value)}
    if score is None:
        raise Ended("crash", f"the command printed no line '{metric}: <number>'")
    if not math.isfinite(score):
        raise Ended("crash", f"the command printed {metric}: {score}")
    values["score"] = score
