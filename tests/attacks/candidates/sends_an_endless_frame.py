"""cheat (protocol): announces a frame of four gigabytes."""

import os

from honest import build, logits, train

from pytest_autoresearch.forkserver.channel import Channel

__all__ = ["build", "logits", "train"]

Channel.send = lambda channel, message, *args: os.write(channel.fileno(), b"\xff" * 4096)
