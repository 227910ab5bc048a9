"""crash (trial): saves a named pipe, so that whoever reads it waits for ever."""

import os

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "trial"
safetensors.torch.save_model = lambda model, path: os.mkfifo(path)
