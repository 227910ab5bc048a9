"""harmless (sandbox): opens sockets to the internet, to this machine and to its daemons."""

import contextlib
import glob
import socket
import sys

from honest import build, logits, train

__all__ = ["build", "logits", "train"]

for address in (("1.1.1.1", 53), ("127.0.0.1", 22), ("169.254.169.254", 80)):
    with contextlib.suppress(OSError), socket.socket() as s:
        s.settimeout(2)
        if s.connect_ex(address) in (0, 111):
            sys.exit(f"{address} answers")
    with contextlib.suppress(OSError), socket.socket(type=socket.SOCK_DGRAM) as s:
        s.sendto(b"x", address)
        sys.exit(f"{address} can be sent datagrams")
for path in ["/var/run/docker.sock", *glob.glob("/tmp/*/agent.*"), *glob.glob("/run/**/*sock*")]:
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as s:
        s.connect(path)
        sys.exit(f"{path} answers")
