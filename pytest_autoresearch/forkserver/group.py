"""A process group of the forkserver: measure, limit, pause and end it from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .usage import (
    ScannedCpu,
    Usage,
    folder_use,
    held_files,
    proportional_bytes,
    read_cpu_counter,
    scan_groups,
)

MAX_PROCESSES = 128
MAX_DESCRIPTORS = 16_384
MAX_FILES = 20_000
"""What a group may hold, and what its folder may hold; above it the group is stopped."""

_DISK_S = 2.0
_HIDDEN_S = 2.0
_PAUSE_TRIES, _PAUSE_S = 1000, 0.005

_REASONS = {
    "processes": f"stopped: more than {MAX_PROCESSES} processes",
    "descriptors": f"stopped: more than {MAX_DESCRIPTORS} open descriptors",
    "disk": f"stopped: wrote more than its limit of bytes or {MAX_FILES} files",
    "hidden": "stopped: it does not show its open files",
    "paused": "stopped: it ran while it was paused",
}


@dataclass(frozen=True)
class Exit:
    """Exit status and use of a group.

    Attributes:
        code, signal: Exit status of the first process, or the signal that ended it.
        peak_memory_bytes, cpu_seconds: Of the whole group.
        stopped: Why the harness ended it: ``"kill"`` at the end of its task, ``"memory"`` or a key
            of `_REASONS` over a limit, ``""`` if it ended by itself.
    """

    code: int | None
    signal: int | None
    peak_memory_bytes: int
    cpu_seconds: float
    stopped: str = ""

    @property
    def over_limit(self) -> bool:
        """Whether it was stopped because it exceeded a limit."""
        return self.stopped not in ("", "kill")

    def describe(self) -> str:
        """Return one line for people."""
        if self.stopped == "memory":
            return f"stopped at {self.peak_memory_bytes >> 20} MiB of memory, above its limit"
        if self.stopped in _REASONS:
            return _REASONS[self.stopped]
        if self.signal is None:
            return f"exited with status {self.code}"
        try:
            return f"killed by {signal.Signals(self.signal).name}"
        except ValueError:
            return f"killed by signal {self.signal}"


class Group:
    """One process group.

    Args:
        pid: Process group, which is the id of its first process.
        counter: Descriptor of its CPU counter, or None where counters are forbidden.
        kill: Ends the group. Only its parent knows whether the id is still in use.

    Attributes:
        memory_limit_bytes, disk_limit_bytes: The group is stopped above them; None for no limit.
        folder: Folder that it may write to, or None.
        ended: Set once the group is empty, or once the forkserver has died.
        orphaned: Whether the forkserver died before the group ended.
    """

    def __init__(self, pid: int, counter: int | None, kill: Callable[[int], None]) -> None:
        self.pid = pid
        self.memory_limit_bytes: int | None = None
        self.disk_limit_bytes: int | None = None
        self.folder: Path | None = None
        self.ended = threading.Event()
        self.orphaned = False
        self._counter = counter
        self._scanned = ScannedCpu(pid) if counter is None else None
        self._kill = kill
        self._stopped = ""
        self._peak = 0
        self._event: Mapping[str, Any] = {}
        self._last_cpu = 0.0
        self._folder_use, self._walked = (0, 0), 0.0
        self._readable, self._shown = False, time.monotonic()
        self._lock = threading.Lock()

    def cpu_seconds(self) -> float:
        """Return the CPU seconds of the group so far, ended processes included."""
        with self._lock:
            if self._scanned is not None:
                if not self.ended.is_set():
                    self._last_cpu = self._scanned.seconds()
            elif self._counter is not None:
                self._last_cpu = read_cpu_counter(self._counter)
            return self._last_cpu

    def pause(self) -> None:
        """Suspend every process until `resume`; wait until none runs."""
        for _ in range(_PAUSE_TRIES):
            self._signal(signal.SIGSTOP)
            if not self._runs():
                return
            time.sleep(_PAUSE_S)

    def resume(self) -> None:
        """Continue the group after `pause`; stop it if it has continued by itself."""
        if self._runs():
            self.stop("paused")
        self._signal(signal.SIGCONT)

    def living(self) -> list[int]:
        """Return its processes that have not ended.

        Raises:
            PermissionError: One goes on without its first thread.
        """
        members = scan_groups([self.pid])[self.pid]
        if any(usage.hidden for usage in members.values()):
            raise PermissionError("a process goes on without its first thread")
        return _living(members)

    def _runs(self) -> bool:
        members = scan_groups([self.pid])[self.pid].values()
        return any(usage.state in ("R", "S") for usage in members)

    def _signal(self, number: signal.Signals) -> None:
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def stop(self, why: str) -> None:
        """Kill the group; the first reason is the one that is reported."""
        if not self.ended.is_set():
            self._stopped = self._stopped or why
            self._kill(self.pid)

    def disk_bytes(self) -> int:
        """Measure the bytes in its folder and in the deleted files that it holds."""
        size = folder_use(self.folder, MAX_FILES)[0] if self.folder is not None else 0
        return size + held_files(self.living()).disk_bytes

    def exit(self) -> Exit:
        """Return how the group ended; call it once `ended` is set."""
        return Exit(
            code=self._event.get("code"),
            signal=self._event.get("signal"),
            peak_memory_bytes=max(self._peak, self._event.get("peak_memory_bytes", 0)),
            cpu_seconds=max(self.cpu_seconds(), self._event.get("cpu_seconds", 0.0)),
            stopped=self._stopped,
        )

    def close(self) -> None:
        """Close the counter; idempotent."""
        self.cpu_seconds()
        with self._lock:
            if self._counter is not None:
                os.close(self._counter)
                self._counter = None

    def take_end(self, event: Mapping[str, Any] | None) -> None:
        """Record the forkserver's exit event; None if the forkserver has died."""
        self._event = event or {}
        self.orphaned = event is None
        self.ended.set()

    def take_scan(self, members: Mapping[int, Usage]) -> None:
        """Record a scan of the group; stop it if it exceeds a limit."""
        if self._scanned is not None:
            with self._lock:
                self._scanned.note(dict(members))
        living = _living(members)
        held = held_files(living)
        resident = sum(usage.resident_bytes for usage in members.values())
        resident += held.memory_bytes - held.mapped_bytes
        limit = self.memory_limit_bytes
        if _over(resident, limit) and len(members) > 1:
            shared_once = proportional_bytes(living)
            resident = resident if shared_once is None else shared_once + held.memory_bytes
        self._peak = max(self._peak, resident)
        now = time.monotonic()
        if self.folder is not None and now - self._walked > _DISK_S:
            self._folder_use, self._walked = folder_use(self.folder, MAX_FILES), now
        size, files = self._folder_use
        self._readable |= not held.unreadable  # else this machine does not permit it at all
        headless = any(usage.hidden for usage in members.values())
        if not (held.under_way or headless or (held.unreadable and self._readable)):
            self._shown = now
        if _over(resident, limit):
            self.stop("memory")
        elif len(members) > MAX_PROCESSES:
            self.stop("processes")
        elif held.descriptors > MAX_DESCRIPTORS:
            self.stop("descriptors")
        elif files > MAX_FILES or _over(size + held.disk_bytes, self.disk_limit_bytes):
            self.stop("disk")
        elif now - self._shown > _HIDDEN_S:
            self.stop("hidden")


def _living(members: Mapping[int, Usage]) -> list[int]:
    return [pid for pid, usage in members.items() if not usage.ended]


def _over(value: int, limit: int | None) -> bool:
    return limit is not None and value > limit
