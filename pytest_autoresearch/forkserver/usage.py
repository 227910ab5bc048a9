"""CPU seconds, memory and processes of a process group, measured from outside it.

Linux counts a process and everything it starts in one perf counter (``task-clock``, inherited by
threads and children, dead ones included), which costs half a microsecond to read. Where perf is
forbidden, ``/proc`` is scanned instead, and each known process's own clock is read in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass

from ..core.processes import read_stat
from ..sandbox import syscalls

_PERF_SOFTWARE, _PERF_TASK_CLOCK, _PERF_CLOEXEC = 1, 1, 8
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6

_SCAN_SECONDS = 0.25
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def open_cpu_counter(pid: int) -> int | None:
    """Open a counter of the CPU time of `pid` and all it starts from now on.

    Returns:
        A descriptor for `read_cpu_counter`, or None where the system forbids it.
    """
    if syscalls.supported():
        return None
    # struct perf_event_attr, linux/perf_event.h: type, size, config, …, flag bits at byte 40.
    attributes = bytearray(128)
    struct.pack_into("=IIQ", attributes, 0, _PERF_SOFTWARE, len(attributes), _PERF_TASK_CLOCK)
    struct.pack_into("=Q", attributes, 40, _INHERIT | _EXCLUDE_KERNEL | _EXCLUDE_HV)
    buffer = (ctypes.c_char * len(attributes)).from_buffer(attributes)
    try:
        return syscalls.syscall("perf_event_open", buffer, pid, -1, -1, _PERF_CLOEXEC)
    except OSError:
        return None


def read_cpu_counter(fd: int) -> float:
    """Return the CPU seconds counted so far; works after the processes have ended too."""
    nanoseconds: int = struct.unpack("=Q", os.read(fd, 8))[0]
    return nanoseconds / 1e9


def process_table() -> Iterator[tuple[int, list[str]]]:
    """Yield the id and the fields (see `read_stat`) of every process, zombies included."""
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            yield int(name), read_stat(name)


@dataclass(frozen=True)
class Usage:
    """Use of one process, from ``/proc/<pid>/stat``.

    Attributes:
        own_s: CPU seconds of its threads, living and dead.
        reaped_s: CPU seconds of descendants it has waited for.
        resident_bytes: Resident memory, shared pages included.
    """

    own_s: float
    reaped_s: float
    resident_bytes: int


def scan_groups(groups: Collection[int]) -> dict[int, dict[int, Usage]]:
    """Return the processes of each of `groups` (process group ids) by process id."""
    usages: dict[int, dict[int, Usage]] = {group: {} for group in groups}
    for pid, fields in process_table():
        if (members := usages.get(int(fields[2]))) is not None:
            own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            members[pid] = Usage(own / _TICKS, reaped / _TICKS, int(fields[21]) * _PAGE)
    return usages


def process_cpu_seconds(pid: int) -> float | None:
    """Return the CPU seconds of one process's threads by its POSIX clock; None once it is gone."""
    try:
        return time.clock_gettime((~pid << 3) | 2)
    except OSError:
        return None


class ScannedCpu:
    """CPU seconds of a group without a counter: scans, and process clocks between scans.

    A process that vanishes without its parent's having waited for it (``SIGCHLD`` ignored) would
    take its CPU seconds along; the part that the survivors' waited-for time does not explain is
    kept.
    """

    def __init__(self, group: int) -> None:
        self._group = group
        self._members: dict[int, Usage] = {}
        self._lost = 0.0
        self._scanned = -1.0
        self._total = 0.0

    def seconds(self) -> float:
        """Return the CPU seconds so far; never decreases."""
        if time.monotonic() - self._scanned > _SCAN_SECONDS:
            self.note(scan_groups([self._group])[self._group])
        total = self._lost
        for pid, usage in self._members.items():
            own = process_cpu_seconds(pid)
            total += usage.reaped_s + (usage.own_s if own is None else max(own, usage.own_s))
        self._total = max(self._total, total)
        return self._total

    def note(self, members: dict[int, Usage]) -> None:
        """Take in a scan of the group."""
        vanished = sum(
            usage.own_s + usage.reaped_s
            for pid, usage in self._members.items()
            if pid not in members
        )
        explained = sum(
            usage.reaped_s - self._members[pid].reaped_s
            for pid, usage in members.items()
            if pid in self._members
        )
        self._lost += max(0.0, vanished - explained)
        self._members = members
        self._scanned = time.monotonic()


def proportional_bytes(pids: list[int]) -> int | None:
    """Return the resident memory of processes with each shared page counted once (PSS).

    None where the system does not show it.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                line = next(line for line in file if line.startswith(b"Pss:"))
        except ProcessLookupError:
            continue
        except (OSError, StopIteration):
            return None
        total += int(line.split()[1]) * 1024
    return total
