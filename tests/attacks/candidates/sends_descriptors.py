"""harmless (channel): sends the evaluator a hundred descriptors to make it run out of them."""

import array
import os
import socket

from honest import build, logits, train

from pytest_autoresearch.forkserver import channel

__all__ = ["build", "logits", "train"]


pipes = [end for _ in range(100) for end in os.pipe()]


def send(self, message, fds=(), *args):
    ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", pipes).tobytes())]
    self._socket.sendmsg([channel.encode(message)], ancillary)


channel.Channel.send = send
