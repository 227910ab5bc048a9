"""Identify processes beyond their pid, which the kernel reuses."""

from __future__ import annotations

from pathlib import Path


def read_stat(pid: int | str) -> list[str]:
    """Return the fields of ``/proc/PID/stat`` that follow the command name.

    The command, in brackets, may hold any character. Field n of proc(5) is at index n - 3.

    Args:
        pid: A process id or ``"self"``.

    Raises:
        OSError: The process has ended, or the system has no ``/proc``.
    """
    stat = Path(f"/proc/{pid}/stat").read_bytes().decode("utf-8", "replace")
    return stat.rpartition(")")[2].split()


def process_start(pid: int) -> str:
    """Return the start time of `pid` in clock ticks since boot; '' if it is not alive."""
    try:
        fields = read_stat(pid)
        return "" if fields[0] in "ZX" else fields[19]
    except (OSError, IndexError):
        return ""


def boot_id() -> str:
    """Return an identifier of the machine's current boot, or ''."""
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return ""
