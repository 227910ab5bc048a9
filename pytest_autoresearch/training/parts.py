"""CPU milliseconds of a training step by part, noted inside the candidate's process.

The clock is read where one part ends and the next begins: at the head's call, around the backward
pass, at the request of a batch. No tensor, generator or graph is touched, and the same CPU time
passes whether the machine is busy or the process is paused. The figures are self-reported.
"""

from __future__ import annotations

from collections import defaultdict
from time import process_time
from typing import Any

import torch
from torch import nn

WARM_UP = 2
"""First batches, which are not counted: they allocate memory and create the optimizer's state."""

PARTS = ("forward", "head_and_loss", "backward", "optimizer")


class StepParts:
    """Adds up the parts of the steps of one process.

    A step begins in ``forward``. It is in ``head_and_loss`` from the call of the last linear layer
    that yields a value for each token of the vocabulary; without such a layer, as where the head
    shares the embedding's weight, that part belongs to ``forward``.

    Args:
        model: The candidate's.
        vocab_size: Outputs of its head.
    """

    def __init__(self, model: nn.Module, vocab_size: int) -> None:
        self._model, self._vocab_size = model, vocab_size
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._part, self._since = "", 0.0
        self._batches = 0

    def requested(self) -> None:
        """End a step; at the first request, begin to look at the candidate's calls."""
        self._enter("")
        if self._batches == 0:
            self._look()
        elif self._batches == WARM_UP:
            self._seconds.clear()

    def handed_out(self) -> None:
        """Begin a step."""
        self._batches += 1
        self._enter("forward")

    def at_head(self) -> None:
        """Note that the head is called."""
        if self._part:
            self._enter("head_and_loss")

    def around_backward(self, part: str) -> None:
        """Note that the backward pass begins, or that what follows it does."""
        if self._part:
            self._enter(part)

    def figures(self) -> dict[str, float]:
        """Return milliseconds a batch by part; nothing without a backward pass or enough steps."""
        steps = self._batches - WARM_UP
        if steps < 1 or not self._seconds["backward"]:
            return {}
        return {
            f"{part}_ms": 1000 * self._seconds[part] / steps
            for part in PARTS
            if self._seconds[part]
        }

    def _enter(self, part: str) -> None:
        now = process_time()
        if self._part:
            self._seconds[self._part] += now - self._since
        self._part, self._since = part, now

    def _look(self) -> None:
        """Install the hooks of the head, as train() has prepared it, and of the backward pass."""
        global _parts
        _parts = self
        heads = [
            module
            for module in self._model.modules()
            if isinstance(module, nn.Linear) and module.out_features == self._vocab_size
        ]
        if heads and getattr(self._model, "_compiled_call_impl", None) is None:
            heads[-1].register_forward_pre_hook(_at_head)
        torch.autograd.backward = _backward


_parts: StepParts | None = None
_real_backward = torch.autograd.backward


def _at_head(module: nn.Module, inputs: Any) -> None:
    """Note the head's call; a plain function, so that a model with it can be copied and saved."""
    if _parts is not None:
        _parts.at_head()


def _backward(*args: Any, **options: Any) -> Any:
    if _parts is None:
        return _real_backward(*args, **options)
    _parts.around_backward("backward")
    try:
        return _real_backward(*args, **options)
    finally:
        _parts.around_backward("optimizer")
