"""crash (training): appends tables to its weights that the header does not mention."""

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"
save_model = safetensors.torch.save_model


def save_more(model, path):
    save_model(model, path)
    with open(path, "ab") as file:
        file.write(b"table" * 1000)


safetensors.torch.save_model = save_more
