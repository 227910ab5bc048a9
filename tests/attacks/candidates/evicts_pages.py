"""harmless (sandbox): evicts cached pages in every way, and then measures whether they are gone."""

import contextlib
import ctypes
import mmap
import os
import sys
import time

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
path = next(
    p for p in (f"{os.path.dirname(os.__file__)}/pydoc.py", os.__file__) if os.path.exists(p)
)
fd = os.open(path, os.O_RDONLY)
size = os.fstat(fd).st_size // mmap.PAGESIZE * mmap.PAGESIZE
os.pread(fd, size, 0)
address = ctypes.c_void_p(libc.mmap(None, ctypes.c_size_t(size), 1, 1, fd, ctypes.c_long(0)))
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
for advice in (20, 21, 9):
    libc.madvise(address, ctypes.c_size_t(size), advice)
with contextlib.suppress(OSError):
    libc.sync_file_range(fd, ctypes.c_long(0), ctypes.c_long(size), 7)
slow = 0
for at in range(0, size, mmap.PAGESIZE):
    began = time.perf_counter()
    os.pread(fd, 1, at)
    slow += time.perf_counter() - began > 1e-3
if slow > size // mmap.PAGESIZE // 2:
    sys.exit(f"{slow} pages were evicted")
