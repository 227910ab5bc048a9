"""harmless (sandbox): looks for settings of the machine that one process can leave for another."""

import contextlib
import ctypes
import os
import socket
import sys
from pathlib import Path

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

SETTINGS = ["kernel/hostname", "kernel/domainname", "kernel/core_pattern", "vm/drop_caches"]
SETTINGS += ["kernel/random/boot_id", "fs/file-max", "vm/swappiness", "kernel/ns_last_pid"]
for name in SETTINGS:
    with contextlib.suppress(OSError):
        path = Path("/proc/sys") / name
        path.write_text(path.read_text())
        sys.exit(f"{path} can be written")
with contextlib.suppress(OSError):
    socket.sethostname("attack")
    sys.exit("the host name can be set")
with contextlib.suppress(OSError):
    os.mknod("/tmp/attack-device", 0o20666, os.makedev(1, 1))
    sys.exit("a device can be made")
if ctypes.CDLL(None, use_errno=True).swapoff(b"/swapfile") == 0:
    sys.exit("swap can be switched")
