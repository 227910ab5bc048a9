"""seccomp: assemble and install a system call filter for x86-64 and AArch64.

Instruction encoding: ``linux/bpf_common.h``; data layout: ``struct seccomp_data``.
"""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
from dataclasses import dataclass

from . import syscalls

DENIED = (
    # other processes' memory and descriptors
    "ptrace", "process_vm_readv", "process_vm_writev", "process_madvise", "process_mrelease",
    "pidfd_getfd", "kcmp", "perf_event_open", "userfaultfd", "move_pages", "migrate_pages",
    # other views of the file system
    "mount", "umount2", "pivot_root", "chroot", "unshare", "setns", "move_mount", "open_tree",
    "open_tree_attr", "fsopen", "fsmount", "fsconfig", "fspick", "mount_setattr",
    "open_by_handle_at", "name_to_handle_at", "fanotify_init", "quotactl", "quotactl_fd",
    # names shared across processes, which only namespaces separate
    "shmget", "shmat", "shmctl", "semget", "msgget", "mq_open", "add_key", "request_key", "keyctl",
    # kernel interfaces that training does not need, and ways around this filter
    "bpf", "io_uring_setup", "io_uring_enter", "io_uring_register", "vmsplice", "lookup_dcookie",
    "personality", "kexec_load", "kexec_file_load", "init_module", "finit_module", "delete_module",
    "syslog", "acct", "swapon", "swapoff", "reboot",
    # a signal from the kernel would continue a paused process
    "timer_create",
    # the clock
    "settimeofday", "clock_settime", "adjtimex", "clock_adjtime",
    # which pages of a file are in memory, which any process can change by reading
    "mincore", "cachestat",
)  # fmt: skip

_CACHE_ADVICE = ("fadvise64", "readahead", "sync_file_range")
"""Calls that change which pages of a file are in memory; they appear to succeed."""

_PRIVATE_ADVICE = (0, 1, 2, 4, 8, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19)
"""Advice to madvise that changes nothing but the caller's own memory (Linux: ``mman-common.h``)."""

PRETENDED = (
    "chmod", "fchmod", "fchmodat", "fchmodat2", "chown", "fchown", "lchown", "fchownat", "utime",
    "utimes", "utimensat", "futimesat", "setxattr", "lsetxattr", "fsetxattr", "setxattrat",
    "removexattr", "lremovexattr", "fremovexattr", "removexattrat",
)  # fmt: skip
"""Changes to file attributes, which Landlock does not cover; they appear to succeed."""

_OWN_PRIORITY = {
    "setpriority": (0, 0), "ioprio_set": (1, 0), "sched_setscheduler": (0,),
    "sched_setparam": (0,), "sched_setattr": (0,),
}  # fmt: skip
"""Calls that can slow other processes down, with the first arguments that mean only the caller."""

_LOCKING = [5, 6, 7, 36, 37, 38, 1024, 1025, 1026]
"""Commands of fcntl for locks, leases and notices (Linux: ``fcntl.h``)."""

_SIGNALLING = ("kill", "tkill", "tgkill", "rt_sigqueueinfo", "rt_tgsigqueueinfo")
_SOCK_STREAM, _SOCK_SEQPACKET = 1, 5
_AF_UNIX, _AF_INET, _AF_INET6, _AF_NETLINK = 1, 2, 10, 16
_TIOCSTI, _TIOCLINUX = 0x5412, 0x541C
_NEW_NAMESPACE = 0x00020000 | 0x02000000 | 0x04000000 | 0x08000000 | 0x10000000 | 0x60000000

_LOAD, _AND, _EQUAL, _AT_LEAST, ANY_BIT, RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
_ALLOW, _KILL, _ERROR = 0x7FFF0000, 0x80000000, 0x00050000
_NUMBER, _ARCH, _FIRST_ARGUMENT = 0, 4, 16
_X32 = 0x40000000
_SECCOMP_SET_MODE_FILTER = 1
_SPEC_ALLOW = 1 << 2  # without it kernels before 5.16 slow the whole process down

Instruction = tuple[int, int, int, int]


@dataclass(frozen=True)
class Filter:
    """Rules of the filter.

    Attributes:
        candidate: Whether to refuse what only tools need: file locks, file events and handlers of
            SIGCHLD.
        network: Whether to allow sockets of the internet families and netlink.
        unix: Whether to allow UNIX sockets; safe only where no socket of the machine can be
            named. Socket pairs are always allowed.
        signals_only_to: The only process id (besides the own group) that may be signalled, where
            no other layer confines signals; else None.
        guard_files: Whether to prevent changes that Landlock does not cover: modes, owners, times
            and (in its first ABIs) truncation. Not needed on a private root.
        guard_others: Whether to prevent a change of other processes' CPU affinity. Not needed in
            a process id namespace.
    """

    network: bool = False
    unix: bool = False
    signals_only_to: int | None = None
    guard_files: bool = False
    candidate: bool = False
    guard_others: bool = False

    def program(self, machine: str) -> bytes:
        """Return the BPF program for `machine` (``x86_64`` or ``aarch64``)."""
        families = [_AF_UNIX] if self.unix else []
        families += [_AF_INET, _AF_INET6, _AF_NETLINK] if self.network else []
        code: list[Instruction] = [
            (_LOAD, 0, 0, _ARCH),
            (_EQUAL, 1, 0, syscalls.AUDIT_ARCH[machine]),
            (RETURN, 0, 0, _KILL),
            LOAD_NUMBER,
        ]
        if machine == "x86_64":
            code += [(_AT_LEAST, 0, 1, _X32), fail(errno.ENOSYS)]
        code += [(_AT_LEAST, 0, 1, syscalls.FIRST_UNKNOWN), fail(errno.ENOSYS)]
        # The C library falls back to clone, whose flags a filter can read.
        code += on(machine, "clone3", fail(errno.ENOSYS))
        code += on(
            machine, "clone", *argument(0), (ANY_BIT, 0, 1, _NEW_NAMESPACE), fail(errno.EPERM),
            PASS,
        )  # fmt: skip
        # A pair of datagram sockets could still send to any named socket.
        code += on(
            machine, "socketpair", *argument(0), (_EQUAL, 1, 0, _AF_UNIX), fail(errno.EACCES),
            *argument(1), (_AND, 0, 0, 0xF), (_EQUAL, 2, 0, _SOCK_STREAM),
            (_EQUAL, 1, 0, _SOCK_SEQPACKET), fail(errno.EACCES), PASS,
        )  # fmt: skip
        code += on(machine, "socket", *_one_of(0, families, errno.EACCES))
        # A pretended success keeps every descendant in the group that killpg ends.
        for name in ("setsid", "setpgid"):
            code += on(machine, name, fail(0))
        # Likewise, no process can cancel its death with the harness, or hide its open files.
        kept = [syscalls.PR_SET_PDEATHSIG, syscalls.PR_SET_DUMPABLE]
        code += on(machine, "prctl", *_none_of(0, kept, 0))
        code += on(machine, "ioctl", *_none_of(1, [_TIOCSTI, _TIOCLINUX], errno.EPERM))
        if self.signals_only_to is not None:
            for name in _SIGNALLING:
                code += on(machine, name, *_one_of(0, [0, self.signals_only_to], errno.EPERM))
            code += on(machine, "pidfd_send_signal", fail(errno.EPERM))
        for name, own in _OWN_PRIORITY.items():
            code += on(machine, name, *_exactly(own, errno.EPERM))
        code += on(machine, "prlimit64", *_one_of(0, [0, os.getpid()], errno.EPERM))
        if self.guard_others:
            code += on(machine, "sched_setaffinity", *_one_of(0, [0, os.getpid()], errno.EPERM))
        if self.guard_files:
            code += self._file_guards(machine)
        if self.candidate:
            code += self._candidate_guards(machine)
        code += on(machine, "madvise", *_one_of(2, list(_PRIVATE_ADVICE), 0))
        # Flags such as RWF_NOWAIT tell whether a page is in memory.
        for name in ("preadv2", "pwritev2"):
            code += on(machine, name, *_one_of(5, [0], errno.EOPNOTSUPP))
        for name in _CACHE_ADVICE:
            code += on(machine, name, fail(0))
        for name in DENIED:
            code += on(machine, name, fail(errno.EPERM))
        code.append(PASS)
        return assemble(code)

    def _candidate_guards(self, machine: str) -> list[Instruction]:
        # Locks and file events would show one candidate what another does; locks appear to succeed.
        code = on(machine, "flock", fail(0))
        code += on(machine, "fcntl", *_none_of(1, _LOCKING, 0))
        for name in ("inotify_init", "inotify_init1"):
            code += on(machine, name, fail(errno.EPERM))
        # With SIGCHLD ignored, the CPU seconds of short children would be in no process's figures.
        return code + on(machine, "rt_sigaction", *_none_of(0, [signal.SIGCHLD], 0))

    def _file_guards(self, machine: str) -> list[Instruction]:
        code: list[Instruction] = []
        for name in PRETENDED:
            code += on(machine, name, fail(0))
        for name in ("truncate", "file_setattr"):
            code += on(machine, name, fail(errno.EPERM))
        # O_RDONLY with O_TRUNC empties a file.
        for name, flags in (("open", 1), ("openat", 2)):
            code += on(
                machine, name, *argument(flags), (_AND, 0, 0, os.O_ACCMODE | os.O_TRUNC),
                (_EQUAL, 0, 1, os.O_RDONLY | os.O_TRUNC), fail(errno.EPERM), PASS,
            )  # fmt: skip
        return code + on(machine, "openat2", fail(errno.ENOSYS))


LOAD_NUMBER: Instruction = (_LOAD, 0, 0, _NUMBER)
PASS: Instruction = (RETURN, 0, 0, _ALLOW)


def fail(code: int) -> Instruction:
    """Return an instruction that fails the call with errno `code`; 0 pretends success."""
    return (RETURN, 0, 0, _ERROR | code)


def argument(index: int) -> tuple[Instruction, ...]:
    """Load the low half of an argument; every checked argument is a C int."""
    return ((_LOAD, 0, 0, _FIRST_ARGUMENT + 8 * index),)


def _one_of(index: int, allowed: list[int], error: int) -> list[Instruction]:
    tests = [
        (_EQUAL, len(allowed) - place, 0, value & 0xFFFFFFFF) for place, value in enumerate(allowed)
    ]
    return [*argument(index), *tests, fail(error), PASS] if allowed else [fail(error)]


def _exactly(values: tuple[int, ...], error: int) -> list[Instruction]:
    """Allow the call if its first arguments are `values`."""
    code = [PASS, fail(error)]
    for index, value in reversed(list(enumerate(values))):
        code = [*argument(index), (_EQUAL, 0, len(code) - 1, value), *code]
    return code


def _none_of(index: int, refused: list[int], error: int) -> list[Instruction]:
    tests = [(_EQUAL, len(refused) - place, 0, value) for place, value in enumerate(refused)]
    return [*argument(index), *tests, PASS, fail(error)]


def on(machine: str, name: str, *body: Instruction) -> list[Instruction]:
    """Return code that runs `body`, which must end in a return, for one system call only."""
    code = syscalls.number(name, machine)
    return [] if code is None else [(_EQUAL, 0, len(body), code), *body]


def assemble(code: list[Instruction]) -> bytes:
    """Return the program in the kernel's encoding."""
    return b"".join(struct.pack("HBBI", *instruction) for instruction in code)


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("code", ctypes.c_void_p))


def install(wanted: Filter) -> str:
    """Filter the system calls of this process and its descendants, irrevocably.

    Returns:
        State for the report.

    Raises:
        OSError: The kernel lacks seccomp filters, or no_new_privs is not set.
    """
    load(wanted.program(os.uname().machine))
    sockets = "internet sockets" if wanted.network else "no internet"
    return f"ok: {len(DENIED)} calls denied, {sockets}, {'' if wanted.unix else 'no '}UNIX sockets"


def load(code: bytes, flags: int = 0) -> int:
    """Install a program on the calling thread; return the kernel's answer (0, or a listener).

    Raises:
        OSError: As for `install`.
    """
    memory = ctypes.create_string_buffer(code, len(code))
    program = ctypes.byref(_Program(len(code) // 8, ctypes.addressof(memory)))
    return syscalls.syscall("seccomp", _SECCOMP_SET_MODE_FILTER, flags | _SPEC_ALLOW, program)
