"""Layers that need no permission: session, limits, descriptors, environment, privileges."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import struct
from collections.abc import Iterable, Mapping

from . import syscalls
from .policy import Limits, SandboxError

_CAPABILITY_VERSION_3 = 0x20080522
_PR_CAP_AMBIENT_CLEAR_ALL = 4
_FROM_CALLER = ("LANG", "LC_ALL", "TZ")


def lead_session() -> str:
    """Become the leader of a new session and process group; die with the forking thread."""
    if os.getsid(0) != os.getpid():
        os.setsid()
    die_with_parent()
    return "ok"


def die_with_parent() -> None:
    """Request SIGKILL when the parent ends; forks and new namespaces do not inherit this."""
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL, "PR_SET_PDEATHSIG")


def refuse_threads() -> None:
    """Raise SandboxError if other threads run: some layers confine only the calling thread."""
    with contextlib.suppress(OSError):
        if (count := len(os.listdir("/proc/self/task"))) > 1:
            raise SandboxError(
                f"process {os.getpid()} has {count} threads; confine a fresh fork before any starts"
            )


def apply_limits(limits: Limits) -> str:
    """Lower the hard resource limits, never raise one; disable core files."""
    wanted = {"CORE": 0, "FSIZE": limits.file_bytes, "NOFILE": limits.open_files}
    for name, value in wanted.items():
        if value is not None:
            kind = getattr(resource, f"RLIMIT_{name}")
            hard = resource.getrlimit(kind)[1]
            lowered = value if hard == resource.RLIM_INFINITY else min(value, hard)
            resource.setrlimit(kind, (lowered, lowered))
    return "ok: " + ", ".join(f"{n} {v}" for n, v in wanted.items() if v is not None)


def close_descriptors(keep: Iterable[int]) -> str:
    """Close every descriptor except 0, 1, 2 and `keep`; open missing standard streams."""
    for standard in range(3):
        try:
            os.fstat(standard)
        except OSError:
            while os.open(os.devnull, os.O_RDWR) < standard:
                pass
    kept = sorted({0, 1, 2, *keep})
    for low, following in zip(kept, [*kept[1:], None], strict=True):
        _close_between(low + 1, following)
    return f"ok: {len(kept)} kept"


def _close_between(low: int, end: int | None) -> None:
    if end is not None and low >= end:
        return
    # Missing before Linux 5.9. /proc is only the second choice: the process outside of a process id
    # namespace loses its own when the one inside changes the root.
    with contextlib.suppress(OSError):
        syscalls.syscall("close_range", low, 0xFFFFFFFF if end is None else end - 1, 0)
        return
    for name in os.listdir("/proc/self/fd"):
        if low <= int(name) and (end is None or int(name) < end):
            with contextlib.suppress(OSError):
                os.close(int(name))


def replace_environment(env: Mapping[str, str] | None) -> str:
    """Replace the environment by `env` and wipe the memory that held the old one."""
    if env is None:
        return "skipped: the policy keeps the caller's"
    os.environ.clear()
    os.environ.update(env)
    # execve put the variables on the stack, where a candidate or /proc could still read them.
    with open("/proc/self/stat") as stat:
        fields = stat.read().rpartition(")")[2].split()
    start, end = int(fields[47]), int(fields[48])
    if 0 < start < end:
        ctypes.memset(start, 0, end - start)
    return f"ok: {len(env)} variables"


def drop_privileges() -> str:
    """Drop every capability, now and across any execve."""
    bounding = 0
    for capability in range(64):
        try:
            syscalls.prctl(syscalls.PR_CAPBSET_DROP, capability, "PR_CAPBSET_DROP")
            bounding += 1
        except OSError:  # past the last capability, or unprivileged
            break
    with contextlib.suppress(OSError):
        syscalls.prctl(syscalls.PR_CAP_AMBIENT, _PR_CAP_AMBIENT_CLEAR_ALL)
    header = struct.pack("Ii", _CAPABILITY_VERSION_3, 0)
    libc = ctypes.CDLL(None, use_errno=True)
    syscalls.checked(libc.capset(header, bytes(24)), "capset")
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1, "PR_SET_NO_NEW_PRIVS")
    held = "capabilities and bounding set empty" if bounding else "capabilities empty"
    return f"ok: {held}, no_new_privs"


def candidate_environment(
    home: str,
    *,
    threads: int | None = 1,
    cuda_devices: str | None = None,
    extra: Mapping[str, str] | None = None,
) -> dict[str, str]:
    """Return the environment of a candidate: of the caller's only language and time zone.

    Args:
        home: The run folder, which holds the home, temporary and cache folders.
        threads: CPU threads of numerical libraries, or None for their default.
        cuda_devices: Value of ``CUDA_VISIBLE_DEVICES``; None hides every device.
        extra: Further variables; override the others.
    """
    env = {name: os.environ[name] for name in _FROM_CALLER if name in os.environ}
    env |= {
        "PATH": "/usr/local/bin:/usr/bin:/bin",
        "HOME": home,
        "TMPDIR": home,
        "USER": "candidate",  # without it torch looks for a user database, which is missing
        "LOGNAME": "candidate",
        "XDG_CACHE_HOME": f"{home}/.cache",
        "TORCHINDUCTOR_CACHE_DIR": f"{home}/.cache/inductor",
        "TRITON_CACHE_DIR": f"{home}/.cache/triton",
        "CUDA_CACHE_PATH": f"{home}/.cache/cuda",
        "CUDA_DEVICE_ORDER": "PCI_BUS_ID",
        "CUDA_VISIBLE_DEVICES": cuda_devices or "",
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    if threads is not None:
        for library in ("OMP", "MKL", "OPENBLAS", "NUMEXPR"):
            env[f"{library}_NUM_THREADS"] = str(threads)
    return env | dict(extra or {})
