"""timeout (limits): goes on training in a thread once load_state_dict() is called."""

import threading

import honest
import torch
from honest import logits, train

__all__ = ["build", "logits", "train"]

CPU_LIMIT_S = 4


def work():
    x = torch.randn(256, 256)
    while True:
        x = (x @ x).tanh()


class Model(honest.Model):
    def load_state_dict(self, *args, **more):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
        return super().load_state_dict(*args, **more)


def build(vocab_size, seq_len):
    return Model(vocab_size, seq_len)
