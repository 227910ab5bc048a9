"""crash (scoring process): saves weights whose header points outside the file."""

import json
import struct

import safetensors.torch
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

STAGE = "run"


def save_model(model, path):
    header = {
        name: {"dtype": "F32", "shape": [*t.shape], "data_offsets": [2**40, 2**40 + 4 * t.numel()]}
        for name, t in model.state_dict().items()
    }
    data = json.dumps(header).encode()
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(data)) + data + b"\0" * 1024)


safetensors.torch.save_model = save_model
