"""Start external commands (agents, checks, command experiments) under a policy."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from . import paths, syscalls
from .policy import Mode, Policy, Report, SandboxError, SandboxUnavailable

Stream = int | Any
"""A standard stream of `subprocess.Popen`."""

_ENTRY = (
    "import sys; sys.path.insert(0, {root!r}); "
    "from pytest_autoresearch.sandbox.entry import main; main({spec}, {report})"
)


class Sandboxed(subprocess.Popen[Any]):
    """A confined command that leads its own process group, with the state of each layer."""

    report: Report

    def kill_group(self) -> None:
        """Kill the command and everything it started; idempotent. `wait` reaps it."""
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)


def launch(
    argv: Sequence[str],
    policy: Policy,
    mode: Mode = "auto",
    *,
    cwd: str | None = None,
    env: Mapping[str, str] | None = None,
    stdin: Stream = subprocess.DEVNULL,
    stdout: Stream = None,
    stderr: Stream = None,
    keep_fds: Sequence[int] = (),
    text: bool = False,
) -> Sandboxed:
    """Start `argv` confined and return once it runs; it dies with the calling thread.

    Args:
        argv: Program and arguments; a program without a slash is looked up on the PATH of its
            environment. The program file is readable; `policy` names the other files it needs.
        policy: What it may reach.
        mode: As for `enter`.
        cwd: Working directory, instead of the policy's.
        env: Whole environment, instead of the policy's; the caller's if both are None.
        stdin: As for `subprocess.Popen`, like the next two; empty by default.
        stdout: The caller's by default.
        stderr: The caller's by default.
        keep_fds: Descriptors it inherits, besides the policy's.
        text: Whether its pipes carry text.

    Raises:
        SandboxUnavailable: The mode is not possible on this machine.
        SandboxError: The command was not found or could not be confined.
    """
    policy = dataclasses.replace(
        policy,
        cwd=cwd or policy.cwd,
        env=policy.env if env is None else env,
        keep_fds=(*policy.keep_fds, *keep_fds),
    )
    program = _find(argv[0], policy)
    policy = dataclasses.replace(policy, read=(*policy.read, program))
    streams = {"stdin": stdin, "stdout": stdout, "stderr": stderr, "text": text}
    return _start([program, *argv], policy, mode, streams)


@functools.cache
def survey(mode: Mode = "auto") -> Report:
    """Return what `enter` enforces on this machine, as tried by a temporary process.

    Raises:
        SandboxUnavailable: The mode is not possible on this machine.
        SandboxError: The process could not be started.
    """
    process = _start([], Policy(seal=True), mode, {"stdin": subprocess.DEVNULL})
    process.wait()
    return process.report


def _find(program: str, policy: Policy) -> str:
    search = (policy.env if policy.env is not None else os.environ).get("PATH", os.defpath)
    if os.path.dirname(program):
        path = shutil.which(os.path.join(policy.cwd or os.getcwd(), program))
    else:
        path = shutil.which(program, path=search)
    if path is None:
        raise SandboxError(f"command {program!r} not found on PATH ({search}); install it")
    return os.path.abspath(path)


def _start(command: list[str], policy: Policy, mode: Mode, streams: Mapping[str, Any]) -> Sandboxed:
    """Start the entry for ``[program, *argv]``, or without a command; wait for its report."""
    layout = paths.layout(policy) if mode != "off" and not syscalls.supported() else None
    spec = {
        "policy": policy.to_json(),
        "mode": mode,
        "program": command[0] if command else "",
        "argv": command[1:],
        "layout": layout and dataclasses.asdict(layout),
    }
    report_read, report_write = os.pipe()
    with tempfile.TemporaryFile() as spec_file, open(report_read) as report:
        try:
            spec_file.write(json.dumps(spec).encode())
            spec_file.seek(0)
            code = _ENTRY.format(
                root=os.path.dirname(paths.PACKAGE), spec=spec_file.fileno(), report=report_write
            )
            process = Sandboxed(
                [sys.executable, "-I", "-S", "-c", code],
                pass_fds=(spec_file.fileno(), report_write, *policy.keep_fds),
                start_new_session=True,
                **streams,
            )
        finally:
            os.close(report_write)
        messages = [json.loads(line) for line in report]
    return _checked(process, messages)


def _checked(process: Sandboxed, messages: list[dict[str, Any]]) -> Sandboxed:
    """Return `process` if it runs confined; else end it and raise."""
    reply: dict[str, Any] = {key: value for message in messages for key, value in message.items()}
    if "layers" in reply and "error" not in reply:
        process.report = Report(reply["layers"])
        return process
    process.kill_group()
    process.wait()
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            stream.close()
    if "refused" in reply:
        raise SandboxUnavailable(reply["refused"])
    raise SandboxError(
        reply.get("error", f"the confined process ended at once, with status {process.returncode}")
    )
