"""Entry point of the process that `launch` starts: confine itself, then execute the command.

Run as ``python -I -S -c``; writes the state of each layer to the report pipe. The pipe closes on
execve, which shows the parent that the command runs.
"""

from __future__ import annotations

import dataclasses
import json
import os
import sys
from typing import Any

from . import seal
from .confine import enter
from .landlock import Rule
from .paths import Layout
from .policy import Policy, SandboxError, SandboxUnavailable


def main(spec_fd: int, report_fd: int) -> None:
    """Read the specification, confine this process and execute the command; never returns."""
    with open(spec_fd) as stream:
        spec = json.load(stream)
    os.set_inheritable(report_fd, False)
    policy = Policy.from_json(spec["policy"])
    kept = dataclasses.replace(policy, keep_fds=(*policy.keep_fds, report_fd))
    try:
        report = enter(kept, spec["mode"], layout=_layout(spec["layout"]))
        layers, _ = seal.prepare(policy, report, spec["mode"])  # see `launch.survey`
    except SandboxError as error:
        kind = "refused" if isinstance(error, SandboxUnavailable) else "error"
        _write(report_fd, {kind: str(error)})
        os._exit(126)
    _write(report_fd, {"layers": layers})
    if not spec["argv"]:
        os._exit(0)
    for fd in policy.keep_fds:
        os.set_inheritable(fd, True)
    try:
        os.execve(spec["program"], spec["argv"], os.environ)
    except OSError as error:
        _write(report_fd, {"error": f"{spec['program']} cannot be executed: {error.strerror}"})
    sys.stderr.flush()
    os._exit(127)


def _write(fd: int, message: dict[str, object]) -> None:
    os.write(fd, json.dumps(message).encode() + b"\n")


def _layout(data: dict[str, Any] | None) -> Layout | None:
    if data is None:
        return None
    return Layout(
        tuple(data["roots"]),
        tuple(data["holes"]),
        tuple((link, target) for link, target in data["links"]),
        tuple(Rule(**rule) for rule in data["rules"]),
    )
