"""harmless (sandbox): makes a pair of datagram sockets, which could send to any named socket."""

import contextlib
import socket
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

with contextlib.suppress(OSError):
    socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    sys.exit("a datagram socket can be had")
