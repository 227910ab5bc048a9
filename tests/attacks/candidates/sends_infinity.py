"""cheat (protocol): sends JSON with infinities and a million nested lists."""

import os
import struct

from honest import build, logits, train

from pytest_autoresearch.forkserver.channel import Channel

__all__ = ["build", "logits", "train"]

PAYLOAD = b'{"type": "ready", "loss": -Infinity, "deep": ' + b"[" * 30_000 + b"]" * 30_000 + b"}"


def send(channel, message, *args):
    os.write(channel.fileno(), struct.pack("<I", len(PAYLOAD)) + PAYLOAD)


Channel.send = send
