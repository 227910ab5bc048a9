"""Linux namespaces: create them, and wait outside for the process inside."""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
from collections.abc import Mapping
from typing import NoReturn

from . import limits, syscalls

MOUNT, UTS, IPC, USER, PID, NETWORK = (
    0x00020000, 0x04000000, 0x08000000, 0x10000000, 0x20000000, 0x40000000,
)  # fmt: skip

FLAGS: Mapping[str, int] = {
    "user": USER,
    "network": NETWORK,
    "ipc": IPC | UTS,
    "pid": PID,
    "mount": MOUNT,
}
"""Namespaces that each layer creates; without privileges ``user`` has to come first."""


def unshare(layer: str) -> str:
    """Move this process into the new namespaces of a layer; return its state for the report.

    Raises:
        OSError: Not permitted here (EPERM, ENOSPC, EINVAL).
    """
    uid, gid = os.geteuid(), os.getegid()
    libc = ctypes.CDLL(None, use_errno=True)
    syscalls.checked(libc.unshare(ctypes.c_int(FLAGS[layer])), "unshare")
    if layer == "user":
        with contextlib.suppress(FileNotFoundError):
            _write("/proc/self/setgroups", "deny")
        _write("/proc/self/uid_map", f"{uid} {uid} 1")
        _write("/proc/self/gid_map", f"{gid} {gid} 1")
    return "ok"


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def enter_pid_namespace() -> None:
    """Continue as process 1 of the new namespace; the original process waits outside.

    Returns in the inner process only. The outer one keeps no descriptor and ends as the inner
    one ends. Either dies with its parent.
    """
    alive, held = os.pipe()
    inner = os.fork()
    if inner:
        os.close(alive)
        try:
            limits.close_descriptors((held,))
            _wait_for(inner)
        finally:
            os._exit(70)
    limits.die_with_parent()
    os.close(held)
    # If the outer process ended before the request above, no death of a parent will end this one.
    os.set_blocking(alive, False)
    with contextlib.suppress(BlockingIOError):
        if os.read(alive, 1) == b"":
            os._exit(70)
    os.close(alive)


def _wait_for(inner: int) -> NoReturn:
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, lambda *_: os.kill(inner, signal.SIGKILL))
    code = os.waitstatus_to_exitcode(os.waitpid(inner, 0)[1])
    if code < 0:
        with contextlib.suppress(OSError):  # SIGKILL has no other disposition
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)
