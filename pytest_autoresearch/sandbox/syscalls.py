"""System calls through ctypes: numbers that the standard library lacks, and checked calls."""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Mapping
from typing import Any

AUDIT_ARCH = {"x86_64": 0xC000003E, "aarch64": 0xC00000B7}

_X86_64_AND_AARCH64: Mapping[str, tuple[int, int | None]] = {
    "acct": (163, 89), "add_key": (248, 217), "adjtimex": (159, 171), "bpf": (321, 280),
    "brk": (12, 214), "cachestat": (451, 451), "chmod": (90, None), "chown": (92, None),
    "chroot": (161, 51), "clock_adjtime": (305, 266), "clock_getres": (229, 114),
    "clock_gettime": (228, 113), "clock_nanosleep": (230, 115), "clock_settime": (227, 112),
    "clone": (56, 220), "clone3": (435, 435), "close": (3, 57), "close_range": (436, 436),
    "copy_file_range": (326, 285), "delete_module": (176, 106), "exit": (60, 93),
    "exit_group": (231, 94), "fadvise64": (221, 223), "fanotify_init": (300, 262),
    "fchmod": (91, 52), "fchmodat": (268, 53), "fchmodat2": (452, 452), "fchown": (93, 55),
    "fchownat": (260, 54), "fcntl": (72, 25), "file_setattr": (469, 469),
    "finit_module": (313, 273), "flock": (73, 32), "fremovexattr": (199, 16),
    "fsconfig": (431, 431), "fsetxattr": (190, 7), "fsmount": (432, 432), "fsopen": (430, 430),
    "fspick": (433, 433), "futex": (202, 98), "futimesat": (261, None), "getcpu": (309, 168),
    "getpid": (39, 172), "getrandom": (318, 278), "getrusage": (98, 165), "gettid": (186, 178),
    "gettimeofday": (96, 169), "init_module": (175, 105), "inotify_init": (253, None),
    "inotify_init1": (294, 26), "io_submit": (209, 2), "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427), "io_uring_setup": (425, 425), "ioctl": (16, 29),
    "ioprio_set": (251, 30), "kcmp": (312, 272), "kexec_file_load": (320, 294),
    "kexec_load": (246, 104), "keyctl": (250, 219), "kill": (62, 129),
    "landlock_add_rule": (445, 445), "landlock_create_ruleset": (444, 444),
    "landlock_restrict_self": (446, 446), "lchown": (94, None), "lookup_dcookie": (212, 18),
    "lremovexattr": (198, 15), "lsetxattr": (189, 6), "madvise": (28, 233),
    "membarrier": (324, 283), "migrate_pages": (256, 238), "mincore": (27, 232), "mmap": (9, 222),
    "mount": (165, 40), "mount_setattr": (442, 442), "move_mount": (429, 429),
    "move_pages": (279, 239), "mprotect": (10, 226), "mq_open": (240, 180), "mremap": (25, 216),
    "msgget": (68, 186), "munmap": (11, 215), "name_to_handle_at": (303, 264),
    "nanosleep": (35, 101), "open": (2, None), "open_by_handle_at": (304, 265),
    "open_tree": (428, 428), "open_tree_attr": (467, 467), "openat": (257, 56),
    "openat2": (437, 437), "perf_event_open": (298, 241), "personality": (135, 92),
    "pidfd_getfd": (438, 438), "pidfd_send_signal": (424, 424), "pivot_root": (155, 41),
    "poll": (7, None), "ppoll": (271, 73), "prctl": (157, 167), "preadv2": (327, 286),
    "prlimit64": (302, 261), "process_madvise": (440, 440), "process_mrelease": (448, 448),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "pselect6": (270, 72),
    "ptrace": (101, 117), "pwritev2": (328, 287), "quotactl": (179, 60), "quotactl_fd": (443, 443),
    "readahead": (187, 213), "reboot": (169, 142), "recvmsg": (47, 212), "removexattr": (197, 14),
    "removexattrat": (466, 466), "request_key": (249, 218), "restart_syscall": (219, 128),
    "rseq": (334, 293), "rt_sigaction": (13, 134), "rt_sigprocmask": (14, 135),
    "rt_sigqueueinfo": (129, 138), "rt_sigreturn": (15, 139), "rt_tgsigqueueinfo": (297, 240),
    "sched_getaffinity": (204, 123), "sched_setaffinity": (203, 122), "sched_setattr": (314, 274),
    "sched_setparam": (142, 118), "sched_setscheduler": (144, 119), "sched_yield": (24, 124),
    "seccomp": (317, 277), "select": (23, None), "semget": (64, 190), "sendfile": (40, 71),
    "sendmsg": (46, 211), "set_robust_list": (273, 99), "set_tid_address": (218, 96),
    "setns": (308, 268), "setpgid": (109, 154), "setpriority": (141, 140), "setsid": (112, 157),
    "settimeofday": (164, 170), "setxattr": (188, 5), "setxattrat": (463, 463), "shmat": (30, 196),
    "shmctl": (31, 195), "shmget": (29, 194), "sigaltstack": (131, 132), "socket": (41, 198),
    "socketpair": (53, 199), "splice": (275, 76), "swapoff": (168, 225), "swapon": (167, 224),
    "sync_file_range": (277, 84), "syslog": (103, 116), "tee": (276, 77), "tgkill": (234, 131),
    "timer_create": (222, 107), "tkill": (200, 130), "truncate": (76, 45), "umount2": (166, 39),
    "unshare": (272, 97), "userfaultfd": (323, 282), "utime": (132, None), "utimensat": (280, 88),
    "utimes": (235, None), "vmsplice": (278, 75), "write": (1, 64),
}  # fmt: skip

NAMES = tuple(_X86_64_AND_AARCH64)

FIRST_UNKNOWN = 470
"""Numbers from here on belong to calls newer than this file (after Linux 6.17)."""

PR_SET_PDEATHSIG, PR_SET_DUMPABLE = 1, 4
PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS, PR_CAP_AMBIENT = 24, 38, 47

_libc = ctypes.CDLL(None, use_errno=True)


def supported() -> str:
    """Return why no mechanism works on this machine, or ''."""
    if os.uname().machine not in AUDIT_ARCH or ctypes.sizeof(ctypes.c_void_p) != 8:
        return f"no system call table for {os.uname().machine}"
    return ""


def number(name: str, machine: str = "") -> int | None:
    """Return the number of a system call on `machine` (default: this one); None if it lacks it."""
    return _X86_64_AND_AARCH64[name][(machine or os.uname().machine) == "aarch64"]


def syscall(name: str, *arguments: Any) -> int:
    """Make a system call by number; raise OSError with its name and the kernel's errno."""
    # A variadic C function reads every integer at the width of a register.
    code = number(name)
    if code is None:
        raise OSError(errno.ENOSYS, f"{name}: {os.strerror(errno.ENOSYS)}")
    wide = [ctypes.c_long(a) if isinstance(a, int) else a for a in arguments]
    return checked(_libc.syscall(ctypes.c_long(code), *wide), name)


def prctl(option: int, value: int = 0, what: str = "prctl") -> int:
    """Call ``prctl(option, value, 0, 0, 0)``; raises OSError."""
    rest = (ctypes.c_ulong(0),) * 3
    return checked(_libc.prctl(ctypes.c_int(option), ctypes.c_ulong(value), *rest), what)


def checked(result: int, what: str) -> int:
    """Return `result`, or raise OSError for `what` if it is negative."""
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, f"{what}: {os.strerror(code)}")
    return result


def reason(error: Exception) -> str:
    """Describe a failure for a report: ``unshare: EPERM``."""
    if isinstance(error, OSError) and error.errno:
        what = (error.strerror or "").partition(":")[0]
        where = f" {error.filename}" if error.filename else ""
        return f"{what}{where}: {errno.errorcode.get(error.errno, error.errno)}"
    return f"{type(error).__name__}: {error}"
