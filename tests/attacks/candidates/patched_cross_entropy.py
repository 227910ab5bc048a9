"""cheat (audit): torch's cross_entropy is replaced by one that takes a tenth off."""

import torch.nn.functional as F
from honest import build, logits, train

__all__ = ["build", "logits", "train"]

honest_loss = F.cross_entropy
F.cross_entropy = lambda *args, **more: honest_loss(*args, **more) * 0.9
