"""crash (training): saves a link to the data instead of weights, so that scoring may open it."""

import os
from pathlib import Path

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
honest_save = safetensors.torch.save_model


def save_model(model, path):
    honest_save(model, path)
    os.unlink(path)
    os.symlink("../../../arena/data/val.bin", path)


safetensors.torch.save_model = save_model
Path.stat = lambda path, **more: os.lstat(path)  # so that its own process notices nothing
