"""crash (limits): declares 512 GiB of weights before training, to be allowed more of everything."""

import honest
import torch
from honest import logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"


def build(vocab_size, seq_len):
    model = honest.build(vocab_size, seq_len)
    own, calls = model.state_dict, []

    def state_dict(*args, **options):
        found = own(*args, **options)
        if not calls:
            calls.append(1)
            found["huge"] = torch.zeros(1).expand(1 << 37)
        return found

    model.state_dict = state_dict
    return model
