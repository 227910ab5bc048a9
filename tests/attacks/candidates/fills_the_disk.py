"""crash (training): fills a file system, so that the machine seems to have failed."""

import tempfile

from honest import build, logits

__all__ = ["build", "logits", "train"]

STAGE = "run"


def train(model, batches):
    for _ in batches(16, model.seq_len):
        with tempfile.TemporaryFile(dir="/tmp") as file:
            while True:
                file.write(b"x" * (1 << 24))
