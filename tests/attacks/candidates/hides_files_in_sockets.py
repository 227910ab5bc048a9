"""refused (seal): hides open files in a socket, where no list of open files shows them."""

import array
import glob
import os
import socket
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

here, there = socket.socketpair()
for path in glob.glob(f"{sys.prefix}/lib/**/*.so", recursive=True)[:50]:
    file = os.open(path, os.O_RDONLY)
    rights = (socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]).tobytes())
    here.sendmsg([b"x"], [rights])
    os.close(file)
