"""crash (training): saves eight gigabytes of nothing, which take minutes to copy."""

import os

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
save_model = safetensors.torch.save_model


def save_sparsely(model, path):
    save_model(model, path)
    os.truncate(path, 8 << 30)


safetensors.torch.save_model = save_sparsely
