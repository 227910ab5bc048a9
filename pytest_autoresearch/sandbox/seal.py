"""Seal a process before it sees secret text: from then on it can compute and answer, nothing else.

A process that has seen the validation text must leave no trace that a later process could read, in
the page cache for example. It runs the candidate's code, so it cannot be trusted to confine itself
further. Instead it starts with a second filter that reports every call but those of `COMPUTING` to
a supervisor in the harness (``seccomp_unotify(2)``). The supervisor lets them through while the
model is loaded; once it stops answering and closes the listener, the kernel refuses them all.

Files mapped or opened before the seal can still be read. The harness therefore makes all their
pages resident, so that reading them changes nothing.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import mmap
import os
import select
import struct
import threading
from collections.abc import Iterable
from pathlib import Path

from . import seccomp, syscalls
from .policy import Mode, Policy, Report, SandboxUnavailable

COMPUTING = (
    # memory
    "brk", "mmap", "munmap", "mremap", "mprotect", "madvise",
    # threads and signals of its own
    "futex", "sched_yield", "sched_getaffinity", "getcpu", "gettid", "getpid", "tgkill", "exit",
    "exit_group", "rt_sigaction", "rt_sigprocmask", "rt_sigreturn", "sigaltstack",
    "restart_syscall", "membarrier", "rseq", "set_robust_list", "set_tid_address",
    # time and random numbers
    "nanosleep", "clock_nanosleep", "clock_gettime", "clock_getres", "gettimeofday", "getrusage",
    "getrandom",
    # the channel to the harness, and output
    "recvmsg", "sendmsg", "poll", "ppoll", "select", "pselect6", "close", "write",
)  # fmt: skip

_READING_FOR_OTHERS = ("sendfile", "splice", "tee", "copy_file_range", "io_submit")
"""Calls that could begin before the seal and read files after it, as their other end allows."""

_CLONE_THREAD = 0x10000
_NEW_LISTENER = 1 << 3
_USER_NOTIF = 0x7FC00000
_RECEIVE, _ANSWER = 0xC0502100, 0xC0182101
_NOTIFICATION, _RESPONSE = struct.Struct("=QII64x"), struct.Struct("=QqiI")
_CONTINUE = 1
_POLL_MS = 500


def program(machine: str, *, gpu: bool) -> bytes:
    """Return the BPF program for `machine`; with `gpu`, calls to the device drivers are allowed."""
    code: list[seccomp.Instruction] = [seccomp.LOAD_NUMBER]
    for name in _READING_FOR_OTHERS:
        code += seccomp.on(machine, name, seccomp.fail(errno.ENOSYS))
    for name in (*COMPUTING, *(("ioctl",) if gpu else ())):
        code += seccomp.on(machine, name, seccomp.PASS)
    code += seccomp.on(
        machine, "clone", *seccomp.argument(0), (seccomp.ANY_BIT, 0, 1, _CLONE_THREAD),
        seccomp.PASS, (seccomp.RETURN, 0, 0, _USER_NOTIF),
    )  # fmt: skip
    return seccomp.assemble([*code, (seccomp.RETURN, 0, 0, _USER_NOTIF)])


def open_listener(*, gpu: bool) -> int:
    """Install the filter on this single-threaded process; return the supervisor's descriptor.

    From the return on, calls outside of `COMPUTING` wait for a supervisor.

    Raises:
        OSError: The kernel is older than Linux 5.5, or another supervisor is installed.
    """
    return seccomp.load(program(os.uname().machine, gpu=gpu), _NEW_LISTENER)


def prepare(policy: Policy, report: Report, mode: Mode) -> tuple[dict[str, str], list[int]]:
    """Install the filter on this confined process if `policy` asks for it.

    Returns:
        The layers of `report`, with the state of ``seal`` if it was asked for, and the listener.

    Raises:
        SandboxUnavailable: Mode ``"require"``, and this machine cannot seal a process.
    """
    layers, listener = dict(report.layers), list[int]()
    if policy.seal:
        layers["seal"] = "skipped: seccomp is not active"
        if report.active("seccomp"):
            try:
                listener.append(open_listener(gpu=policy.gpu))
                layers["seal"] = "ok: can be sealed"
            except OSError as error:
                layers["seal"] = f"failed: {syscalls.reason(error)}"
        if mode == "require" and not listener:
            raise SandboxUnavailable(
                f"this machine cannot seal a scoring process ({layers['seal']}); it needs Linux "
                "5.5 and a container runtime that leaves seccomp listeners free, or choose sandbox "
                "mode auto (scores are then unverified)"
            )
    return layers, listener


class Supervisor:
    """Lets the calls of one process group through until `close`.

    Args:
        listener: Descriptor of `open_listener`; the supervisor owns it from now on.
    """

    def __init__(self, listener: int) -> None:
        self._listener = listener
        self._sealing = threading.Event()
        self._wake, self._woken = os.pipe2(os.O_CLOEXEC)
        self._thread = threading.Thread(target=self._serve, name="seal", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Refuse every further call; idempotent."""
        if not self._sealing.is_set():
            self._sealing.set()
            os.close(self._woken)
            self._thread.join()

    def _serve(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        try:
            while not self._sealing.is_set():
                events = dict(poll.poll(_POLL_MS))
                if events.get(self._listener, 0) & select.POLLIN:
                    self._let_through()
                elif events.get(self._listener):  # every process with the filter has ended
                    break
        finally:
            os.close(self._listener)
            os.close(self._wake)

    def _let_through(self) -> None:
        notification = bytearray(_NOTIFICATION.size)
        # ENOENT: the caller was killed, or a signal interrupted its call
        with contextlib.suppress(FileNotFoundError, InterruptedError):
            fcntl.ioctl(self._listener, _RECEIVE, notification)
            call = _NOTIFICATION.unpack(notification)[0]
            fcntl.ioctl(self._listener, _ANSWER, _RESPONSE.pack(call, 0, 0, _CONTINUE))


def make_files_resident(threads: Iterable[str], private: Path | None) -> str:
    """Read all files that sealed and paused threads have mapped or opened.

    Args:
        threads: Their folders in ``/proc``.
        private: A folder that no other candidate can read, which is left out.

    Returns:
        State for the report.

    Raises:
        PermissionError: One of them hides its files.
    """
    files: set[str] = set()
    for thread in threads:
        files |= _files(thread)
    own = f"{private}/"
    for path in files:
        if private is None or not path.startswith(own):
            _make_resident(path)
    return f"ok: only computing is allowed, {len(files)} files resident"


def _files(thread: str) -> set[str]:
    """Return the files that a paused thread has mapped or opened and that others can read."""
    paths = {os.readlink(f"{thread}/fd/{fd}") for fd in os.listdir(f"{thread}/fd")}
    with open(f"{thread}/maps", encoding="utf-8", errors="surrogateescape") as table:
        for line in table:
            paths.add(line.rstrip("\n").split(maxsplit=5)[-1])
    return {path for path in paths if path.startswith("/") and os.path.isfile(path)}


def _make_resident(path: str) -> None:
    """Touch every page of a file, so that it is in the page cache."""
    with (
        contextlib.suppress(OSError, ValueError),
        open(path, "rb") as file,
        mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as pages,
    ):
        # A slice with a stride reads one byte of each page, without a loop in Python.
        pages[:: mmap.PAGESIZE]
