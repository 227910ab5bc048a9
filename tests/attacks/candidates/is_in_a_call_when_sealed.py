"""harmless (seal): threads wait in calls that would read files for the other end after the seal."""

import glob
import os
import socket
import sys
import threading

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

sent = []


def send(path, there):
    try:
        with open(path, "rb") as file:
            sent.append(os.sendfile(there.fileno(), file.fileno(), 0, 1 << 24))
    except OSError:
        return


pairs = []
for path in sorted(glob.glob(f"{sys.prefix}/lib/**/*.so", recursive=True))[:8]:
    pairs.append(socket.socketpair())
    threading.Thread(target=send, args=(path, pairs[-1][1]), daemon=True).start()
    pairs[-1][0].setblocking(False)
for here, _ in pairs:
    try:
        here.recv(1)
        sys.exit("a call that began before the seal can read files after it")
    except BlockingIOError:
        pass
