"""guard (limits): sends memory files into a socket that nobody reads, so that no process has them."""

import os
import socket
import time

import honest
from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    here, there = socket.socketpair()
    for _ in range(8):
        file = os.memfd_create("hidden")
        os.write(file, bytes(10 << 20))
        socket.send_fds(here, [b"x"], [file])
        os.close(file)
    time.sleep(15)
    honest.train(model, batches)
    there.close()
