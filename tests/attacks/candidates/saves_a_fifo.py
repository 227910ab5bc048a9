"""crash (training): saves a named pipe, so that its reader waits forever."""

import os

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
safetensors.torch.save_model = lambda model, path: os.mkfifo(path)
