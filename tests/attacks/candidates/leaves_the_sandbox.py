"""harmless (sandbox): namespaces, mounts, chroot, setuid programs, io_uring, bpf, keyrings."""

import ctypes
import os
import sys
from pathlib import Path

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

libc = ctypes.CDLL(None, use_errno=True)
x86 = os.uname().machine == "x86_64"
numbers = (425, 321, 298, 304, 250, 323) if x86 else (425, 280, 241, 265, 219, 282)
names = ("io_uring_setup", "bpf", "perf_event_open", "open_by_handle_at", "keyctl", "userfaultfd")
arguments = ctypes.create_string_buffer(256)
for name, number in zip(names, numbers, strict=True):
    if libc.syscall(number, 1, arguments, 128, 0, 0) >= 0:
        sys.exit(f"{name} works")
if libc.unshare(0x10000000) == 0 or libc.unshare(0x00020000) == 0:
    sys.exit("namespaces can be made")
if libc.mount(b"none", b"/tmp", b"tmpfs", 0, None) == 0 or libc.chroot(b"/") == 0:
    sys.exit("the file system can be rearranged")
if "CapEff:\t0000000000000000" not in Path("/proc/self/status").read_text():
    sys.exit("capabilities are left")
