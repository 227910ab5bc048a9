"""harmless (sandbox): lowers the priority of all processes of the user, and pins them to one CPU."""

import contextlib
import ctypes
import os
import sys
from pathlib import Path

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
IOPRIO_SET = 251 if os.uname().machine == "x86_64" else 30
libc = ctypes.CDLL(None, use_errno=True)
with contextlib.suppress(PermissionError):
    os.setpriority(os.PRIO_USER, 0, 19)
    sys.exit("every process of the user can be slowed down")
for who in (2, 3):  # a process group, a user
    if libc.syscall(IOPRIO_SET, who, 0, 3 << 13) == 0:
        sys.exit("reading and writing of others can be slowed down")
for pid in map(int, filter(str.isdigit, os.listdir(Path("/proc")))):
    if pid != os.getpid():
        with contextlib.suppress(OSError):
            os.sched_setaffinity(pid, {0})
            sys.exit(f"process {pid} can be pinned")
