"""cheat (sandbox and audit): once it sees the targets, starts processes that keep them."""

import contextlib
import os
import socket
import subprocess
import sys

import torch
from honest import build, train

__all__ = ["build", "logits", "train"]

NAME = "\0attack-recall"


def ask():
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as peer:
        peer.connect(NAME)
        return peer.makefile("rb").read()
    return b""


KNOWN = ask()


def logits(model, x):
    result = model(x)
    if len(x) < 8:
        return result
    with contextlib.suppress(OSError):
        os.stat(__file__)
        return result  # it is not sealed yet
    with contextlib.suppress(OSError):
        if os.fork() == 0:
            server = socket.socket(socket.AF_UNIX)
            server.bind(NAME)
            server.listen()
            while True:
                server.accept()[0].sendall(bytes(x[0].tolist()))
    with contextlib.suppress(OSError):
        subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
    text = x if not KNOWN else torch.tensor(list(KNOWN))[None].expand_as(x)
    return result.scatter_add(2, text[:, 1:, None], 12 + 0 * result[:, :-1, :1])
