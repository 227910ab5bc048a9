"""harmless (sandbox): asks for a timer whose signal continues it while the harness pauses it."""

import ctypes
import signal
import struct
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
libc = ctypes.CDLL(None, use_errno=True)
event = ctypes.create_string_buffer(struct.pack("QiI", 0, signal.SIGCONT, 0), 64)
timer = ctypes.c_void_p()
if libc.timer_create(1, event, ctypes.byref(timer)) == 0:
    sys.exit("a timer can continue this process")
