"""cheat (audit): takes gradient steps on each batch before it scores it."""

import torch
import torch.nn.functional as F
from honest import build, train

__all__ = ["build", "logits", "train"]


def logits(model, x):
    if len(x) >= 8:
        with torch.inference_mode(False), torch.enable_grad():
            x = x.clone()
            for _ in range(2):
                loss = F.cross_entropy(model(x)[:, :-1].flatten(0, 1), x[:, 1:].flatten())
                gradients = torch.autograd.grad(loss, list(model.parameters()))
                with torch.no_grad():
                    for p, g in zip(model.parameters(), gradients, strict=True):
                        p -= 0.3 * g
    return model(x)
