"""cheat (protocol): floods the channel with unsolicited messages."""

from honest import build, train

from pytest_autoresearch.forkserver.channel import Channel

__all__ = ["build", "logits", "train"]

honest_send = Channel.send


def send(channel, message, *args, **more):
    if message["type"] == "ready":
        honest_send(channel, message)
        while True:
            honest_send(channel, {"type": "ready", "again": "x" * 60_000})
    honest_send(channel, message, *args, **more)


Channel.send = send


def logits(model, x):
    return model(x)
