"""Which process is meant: an identity that outlives a number given to another process."""

from __future__ import annotations

import os
import platform
from pathlib import Path


def process_start(pid: int) -> str:
    """Return when `pid` started, in the kernel's ticks since boot; '' if it is not alive."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
        state = stat.rpartition(")")[2].split()
        return "" if state[0] in "ZX" else state[19]
    except (OSError, IndexError):
        if Path("/proc/self/stat").exists():
            return ""
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return ""
        except PermissionError:
            pass
        return "alive"


def boot_id() -> str:
    """Return an identity of this boot of this machine, or ''."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""


def is_alive(host: str, boot: str, pid: int, start: str) -> bool:
    """Whether a process lives; of another machine's nothing is known, so it counts as alive."""
    if host != platform.node():
        return True
    started = process_start(pid)
    return bool(started) and boot == boot_id() and start == started
