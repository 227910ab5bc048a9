"""A process group of the forkserver: measure, limit, pause and end it from outside."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .usage import ScannedCpu, Usage, proportional_bytes, read_cpu_counter

MAX_PROCESSES = 128
"""Processes a group may hold; above it the group is stopped."""


@dataclass(frozen=True)
class Exit:
    """Exit status and use of a group.

    Attributes:
        code: Exit status of the first process, or None if a signal ended it.
        signal: The signal that ended it, or None.
        peak_memory_bytes: Peak resident memory of the group.
        cpu_seconds: CPU seconds of the group.
        stopped: Why the harness ended it: ``"memory"``, ``"processes"``, ``"kill"``; ``""`` if it
            ended by itself.
    """

    code: int | None
    signal: int | None
    peak_memory_bytes: int
    cpu_seconds: float
    stopped: str = ""

    def describe(self) -> str:
        """Return one line for people."""
        if self.stopped == "memory":
            return f"stopped at {self.peak_memory_bytes >> 20} MiB of memory, above its limit"
        if self.stopped == "processes":
            return f"stopped: more than {MAX_PROCESSES} processes"
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
        memory_limit_bytes: Resident memory above which the group is stopped, or None.
        ended: Set once the group is empty, or once the forkserver has died.
        orphaned: Whether the forkserver died before the group ended.
    """

    def __init__(self, pid: int, counter: int | None, kill: Callable[[int], None]) -> None:
        self.pid = pid
        self.memory_limit_bytes: int | None = None
        self.ended = threading.Event()
        self.orphaned = False
        self._counter = counter
        self._scanned = ScannedCpu(pid) if counter is None else None
        self._kill = kill
        self._stopped = ""
        self._peak = 0
        self._event: Mapping[str, Any] = {}
        self._last_cpu = 0.0
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

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group unless it has ended."""
        if not self.ended.is_set():
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def stop(self, why: str) -> None:
        """Kill the group; the first reason is the one that is reported."""
        if not self.ended.is_set():
            self._stopped = self._stopped or why
            self._kill(self.pid)

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
        resident = sum(usage.resident_bytes for usage in members.values())
        limit = self.memory_limit_bytes
        if limit is not None and resident > limit and len(members) > 1:
            shared_once = proportional_bytes(list(members))
            resident = resident if shared_once is None else shared_once
        self._peak = max(self._peak, resident)
        if limit is not None and resident > limit:
            self.stop("memory")
        elif len(members) > MAX_PROCESSES:
            self.stop("processes")
