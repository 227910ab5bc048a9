"""harmless (sandbox): signals, traces and reads the processes above it, and all others."""

import contextlib
import ctypes
import os
import signal
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

libc = ctypes.CDLL(None, use_errno=True)
group = {os.getpid(), 0}
for pid in {os.getppid(), 1} - group:
    if pid == 1 and os.getppid() == 0:
        continue  # alone in a namespace of its own
    with contextlib.suppress(OSError):
        os.kill(pid, signal.SIGCONT)
        sys.exit(f"process {pid} can be signalled")
with contextlib.suppress(ProcessLookupError, PermissionError):
    os.kill(-1, 0)  # harms nobody
    sys.exit("other processes can be signalled")
for request, pid in ((16, os.getppid()), (0x4206, os.getppid()), (0, 0)):  # ATTACH, SEIZE, TRACEME
    if libc.ptrace(request, pid, 0, 0) == 0:
        sys.exit("processes can be traced")
buffer = ctypes.create_string_buffer(8)
vector = (ctypes.c_void_p * 2)(ctypes.addressof(buffer), 8)
for call in (libc.process_vm_readv, libc.process_vm_writev):
    if call(os.getppid(), vector, 1, vector, 1, 0) > 0:
        sys.exit("another process's memory can be reached")
