"""harmless (channel): sends the evaluator a hundred descriptors to make it run out of them."""

import array
import contextlib
import os
import socket

from honest import build, logits, train

from pytest_autoresearch.trial import channel

__all__ = ["build", "logits", "train"]

honest_send = channel.Channel.send


def send(self, message, fds=(), *args):
    with contextlib.suppress(OSError):
        pipes = [os.pipe()[0] for _ in range(100)]
        rights = array.array("i", pipes).tobytes()
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, rights)]
        self._socket.sendmsg([channel.encode(message)], ancillary)
        return
    honest_send(self, message)


channel.Channel.send = send
