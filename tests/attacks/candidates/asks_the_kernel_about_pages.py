"""harmless (sandbox): asks in every way which pages of a file are in memory."""

import contextlib
import ctypes
import mmap
import os
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(os.__file__, os.O_RDONLY)
size = 4 * mmap.PAGESIZE
address = ctypes.c_void_p(libc.mmap(None, ctypes.c_size_t(size), 1, 1, fd, ctypes.c_long(0)))
states = (ctypes.c_ubyte * 64)()
if libc.mincore(address, ctypes.c_size_t(size), states) == 0:
    sys.exit("mincore answers")
if libc.syscall(451, fd, states, states, 0) == 0:
    sys.exit("cachestat answers")
with contextlib.suppress(OSError):
    os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT)
    sys.exit("preadv2 answers")
