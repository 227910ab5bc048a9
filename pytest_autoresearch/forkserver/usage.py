"""CPU seconds, memory, disk and processes of a process group, measured from outside it.

Linux counts a process and everything it starts in one perf counter (``task-clock``, inherited by
threads and children, dead ones included), which costs half a microsecond to read. Where perf is
forbidden, ``/proc`` is scanned instead, and each known process's own clock is read in between.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import os
import re
import stat
import struct
import time
from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path

from ..core.processes import read_stat
from ..sandbox import syscalls

_PERF_SOFTWARE, _PERF_TASK_CLOCK, _PERF_CLOEXEC = 1, 1, 8
_INHERIT, _EXCLUDE_KERNEL, _EXCLUDE_HV = 1 << 1, 1 << 5, 1 << 6

_SCAN_SECONDS = 0.25
_MOST_DESCRIPTORS = 4096
_UNDER_WAY = (0, 0, 0)
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE = os.sysconf("SC_PAGE_SIZE")


def open_cpu_counter(pid: int) -> int | None:
    """Open a counter of the CPU time of `pid` and all it starts; None where it is forbidden."""
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
        own_s, reaped_s: CPU seconds of its threads, and of descendants it has waited for.
        resident_bytes: Resident memory, shared pages included.
        state: Of its first thread, which can end before the others: ``R`` or ``S`` if it runs or
            sleeps, ``T`` if it is stopped, ``Z`` if it has ended, …
        threads: Number of its threads.
    """

    own_s: float
    reaped_s: float
    resident_bytes: int
    state: str = "R"
    threads: int = 1

    @property
    def ended(self) -> bool:
        """Whether its first thread has ended."""
        return self.state in ("Z", "X")

    @property
    def hidden(self) -> bool:
        """Whether it goes on without its first thread, for which alone ``/proc`` counts memory."""
        return self.ended and self.threads > 1


def scan_groups(groups: Collection[int]) -> dict[int, dict[int, Usage]]:
    """Return the processes of each of `groups` (process group ids) by process id."""
    usages: dict[int, dict[int, Usage]] = {group: {} for group in groups}
    for pid, fields in process_table():
        if (members := usages.get(int(fields[2]))) is not None:
            own, reaped = int(fields[11]) + int(fields[12]), int(fields[13]) + int(fields[14])
            resident = int(fields[21]) * _PAGE
            state, threads = fields[0], int(fields[17])
            members[pid] = Usage(own / _TICKS, reaped / _TICKS, resident, state, threads)
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
    """Return the resident memory of processes with each page counted once, without memory files.

    None where the system does not show it.
    """
    total = 0
    for pid in pids:
        try:
            with open(f"/proc/{pid}/smaps_rollup", "rb") as file:
                sizes = {line.split()[0]: int(line.split()[1]) for line in file if b" kB" in line}
            total += 1024 * (sizes[b"Pss:"] - sizes.get(b"Pss_Shmem:", 0))
        except ProcessLookupError:
            continue
        except (OSError, LookupError):
            return None
    return total


@dataclass(frozen=True)
class Held:
    """What processes hold beside their private memory and the files in their folder.

    Attributes:
        memory_bytes: Size of memory files (memfd, shared anonymous memory) that they have open or
            mapped, and of private temporary file systems.
        mapped_bytes: Resident memory of the processes that consists of these; in both figures.
        disk_bytes: Size of deleted files that they have open or mapped.
        descriptors: Number of open descriptors.
        unreadable: Whether a process does not show its open files.
        under_way: Whether a file that was sent into a socket waits to be received.
    """

    memory_bytes: int = 0
    mapped_bytes: int = 0
    disk_bytes: int = 0
    descriptors: int = 0
    unreadable: bool = False
    under_way: bool = False


def held_files(pids: Collection[int]) -> Held:
    """Measure what living processes hold in files without a name."""
    memory: dict[tuple[int, int], int] = {}
    disk: dict[tuple[int, int], int] = {}
    temporary: dict[int, int] = {}
    mapped = descriptors = 0
    unreadable = under_way = False
    for pid in pids:
        try:
            mapped += _resident_files(pid)
            temporary.update(_private_folders(pid))
            deleted, count = list[tuple[int, int, int]](), 0
            for task in tasks(pid):
                names = os.listdir(f"{task}/fd")
                deleted += [*_deleted_open(task, names), *_deleted_mapped(task)]
                count = max(count, len(names))
            under_way |= _UNDER_WAY in deleted
        except PermissionError:
            unreadable = True
            continue
        except OSError:  # it has ended
            continue
        descriptors += count
        for device, inode, size in deleted:
            if device not in temporary:
                files = memory if device == _memory_device() else disk
                files[device, inode] = max(size, files.get((device, inode), 0))
    size = sum(memory.values()) + sum(temporary.values())
    return Held(size, mapped, sum(disk.values()), descriptors, unreadable, under_way)


def tasks(pid: int) -> list[str]:
    """Return the folders in ``/proc`` of a process's living threads.

    Each may have a table of open files of its own, and the first may have ended before the others.
    """
    found = []
    for name in os.listdir(f"/proc/{pid}/task"):
        folder = f"/proc/{pid}/task/{name}"
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            if read_stat(f"{pid}/task/{name}")[0] not in ("Z", "X"):
                found.append(folder)
    return found


@functools.cache
def _memory_device() -> int:
    """Return the device number of every memory file."""
    fd = os.memfd_create("autoresearch", os.MFD_CLOEXEC)
    try:
        return os.fstat(fd).st_dev
    finally:
        os.close(fd)


def _resident_files(pid: int) -> int:
    with open(f"/proc/{pid}/status", "rb") as file:
        line = next((line for line in file if line.startswith(b"RssShmem:")), b"RssShmem: 0")
    return int(line.split()[1]) * 1024


def _private_folders(pid: int) -> Iterator[tuple[int, int]]:
    """Yield device and used bytes of each temporary file system that only the sandbox sees."""
    for folder in ("/tmp", "/dev/shm"):
        with contextlib.suppress(FileNotFoundError, NotADirectoryError):
            inner = f"/proc/{pid}/root{folder}"
            device = os.stat(inner).st_dev
            if not os.path.exists(folder) or device != os.stat(folder).st_dev:
                figures = os.statvfs(inner)
                yield device, (figures.f_blocks - figures.f_bfree) * figures.f_frsize


def _deleted_open(task: str, names: list[str]) -> Iterator[tuple[int, int, int]]:
    """Yield device, inode and bytes of the files without a name that a process has open.

    Files that it has sent into a socket and that nobody has received are one `_UNDER_WAY`.
    """
    for name in names[:_MOST_DESCRIPTORS]:
        with contextlib.suppress(FileNotFoundError):
            status = os.stat(f"{task}/fd/{name}")
            if stat.S_ISREG(status.st_mode) and not status.st_nlink:
                yield status.st_dev, status.st_ino, status.st_blocks * 512
            elif stat.S_ISSOCK(status.st_mode):
                with open(f"{task}/fdinfo/{name}", "rb") as file:
                    if re.search(rb"^scm_fds:\s*[1-9]", file.read(), re.MULTILINE):
                        yield _UNDER_WAY


def _deleted_mapped(task: str) -> Iterator[tuple[int, int, int]]:
    """Yield device, inode and bytes of the files without a name that a process has mapped.

    Only root may learn the size of a file from its mapping; for others it is the mapping's.
    """
    with open(f"{task}/maps", "rb") as file:
        lines = [line for line in file if line.endswith(b"(deleted)\n")]
    for line in lines:
        addresses, _, offset, device, inode, _ = line.decode("utf-8", "replace").split(maxsplit=5)
        start, end = (int(address, 16) for address in addresses.split("-"))
        size = int(offset, 16) + end - start
        with contextlib.suppress(OSError):
            process = task.partition("/task/")[0]
            size = os.stat(f"{process}/map_files/{start:x}-{end:x}").st_blocks * 512
        major, minor = (int(part, 16) for part in device.split(":"))
        yield os.makedev(major, minor), int(inode), size


def folder_use(folder: Path, most_files: int) -> tuple[int, int]:
    """Return bytes and number of the files in a folder; stops counting above `most_files`."""
    size = files = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with contextlib.suppress(OSError):
                size += os.lstat(os.path.join(parent, name)).st_blocks * 512
        files += len(names) + 1
        if files > most_files:
            break
    return size, files
