"""crash (training): declares a negative number of parameters."""

from honest import build, logits, train

from pytest_autoresearch.forkserver.channel import Channel

__all__ = ["build", "logits", "train"]

STAGE = "run"
honest_send = Channel.send


def send(channel, message, *args, **more):
    if message.get("type") == "ready":
        message = {"type": "ready", "parameters": -1, "bytes": 10**30}
    honest_send(channel, message, *args, **more)


Channel.send = send
