"""Confinement of untrusted processes: one file a mechanism, one report of what is active.

`enter` confines the calling process, `launch` starts an external command confined, `survey` says
what this machine can enforce. Standard library only; imports nothing heavy.
"""

from __future__ import annotations

from .confine import Announce, enter, prepare
from .launch import Sandboxed, launch, survey
from .limits import candidate_environment
from .policy import COUNTED, LAYERS, Limits, Mode, Policy, Report, SandboxError, SandboxUnavailable

__all__ = [
    "COUNTED",
    "LAYERS",
    "Announce",
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
