"""Confinement of untrusted processes: one module for each mechanism, one report of what is active.

`enter` confines the calling process, `launch` starts an external command confined, `survey` returns
what this machine can enforce. Standard library only; imports nothing heavy.
"""

from __future__ import annotations

from .confine import enter, prepare
from .launch import Sandboxed, launch, survey
from .limits import candidate_environment
from .policy import COUNTED, LAYERS, Limits, Mode, Policy, Report, SandboxError, SandboxUnavailable

__all__ = [
    "COUNTED",
    "LAYERS",
    "Limits",
    "Mode",
    "Policy",
    "Report",
    "SandboxError",
    "SandboxUnavailable",
    "Sandboxed",
    "candidate_environment",
    "enter",
    "launch",
    "prepare",
    "survey",
]
