"""harmless (sandbox): looks for the evaluator in /proc: memory, environment, open files."""

import contextlib
import glob
import os
import sys
from pathlib import Path

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

for pid in {os.getppid(), 1, *(int(p) for p in map(os.path.basename, glob.glob("/proc/[0-9]*")))}:
    if pid == os.getpid():
        continue
    for name in ("mem", "environ", "maps", "map_files", "fd/3", "root/etc/passwd", "cwd/train.py"):
        with contextlib.suppress(OSError):
            fd = os.open(f"/proc/{pid}/{name}", os.O_RDONLY)
            if name == "mem" or os.read(fd, 1):
                sys.exit(f"/proc/{pid}/{name} can be read")
if "attack-secret" in str(os.environ) + Path("/proc/self/environ").read_text():
    sys.exit("the evaluator's environment was inherited")
