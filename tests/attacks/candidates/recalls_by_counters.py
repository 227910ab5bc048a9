"""harmless (sandbox): looks for counters of the machine that an earlier process could have moved."""

import contextlib
import os
import sys
from pathlib import Path

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

COUNTERS = ["stat", "vmstat", "loadavg", "interrupts", "softirqs", "schedstat", "zoneinfo"]
COUNTERS += ["buddyinfo", "slabinfo", "diskstats", "timer_list", "pressure/cpu", "keys"]
FILES = [Path("/proc") / name for name in COUNTERS]
FILES += [Path("/sys/devices/system/node/node0") / name for name in ("vmstat", "numastat")]
for path in FILES:
    with contextlib.suppress(OSError):
        if path.read_text().strip():
            sys.exit(f"{path} can be read by process {os.getpid()}")
