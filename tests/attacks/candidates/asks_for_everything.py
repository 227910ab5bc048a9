"""crash (budget): asks for batches of negative, huge and fractional size."""

from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    for batch_size in (1 << 40, -1):
        for _ in batches(batch_size, model.seq_len):
            pass
