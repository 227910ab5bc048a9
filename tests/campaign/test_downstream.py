"""The downstream task, on real confined processes."""

from __future__ import annotations

import sys

import numpy as np
from attacks.arena import HERE, Arena

from pytest_autoresearch.scoring.downstream import PROMPT, ROWS, SAMPLE_TOKENS, downstream

pytest_plugins = ("attacks.fixtures",)

HONEST = b"from honest import *\n"
ECHO = b"""
from honest import *
import torch

def logits(model, x):
    return torch.nn.functional.one_hot(x, 384).float()
"""


def test_accuracy_equals_the_one_computed_in_process(arena: Arena) -> None:
    import torch
    from safetensors.torch import load_model

    sys.path.insert(0, str(HERE))
    try:
        import honest
    finally:
        sys.path.remove(str(HERE))
    dataset = arena.dataset
    model = honest.build(dataset.vocab_size, dataset.seq_len)
    load_model(model, arena.checkpoint)
    reserved = np.asarray(dataset.reserved_tokens()).astype(np.int64)
    starts = np.linspace(0, len(reserved) - dataset.seq_len - 1, ROWS).astype(int)
    x = torch.from_numpy(np.stack([reserved[s : s + dataset.seq_len] for s in starts]))
    with torch.inference_mode():
        first = model(x)[:, -1].argmax(dim=1).numpy()
    right = float((first == reserved[starts + dataset.seq_len]).mean())
    found = downstream(arena.start({"train.py": HONEST}, "downstream"), dataset)
    assert found is not None
    assert abs(found.accuracy - right) < 2 / ROWS
    assert found.sample.startswith(PROMPT)
    assert len(found.sample) > len(PROMPT)


def test_model_that_repeats_the_last_token_scores_low(arena: Arena) -> None:
    found = downstream(arena.start({"train.py": ECHO}, "echo"), arena.dataset)
    assert found is not None
    assert found.accuracy < 0.2
    encoding = arena.dataset.encoding()
    tail = encoding.encode(PROMPT)[-1]
    assert found.sample.endswith(encoding.decode([tail] * SAMPLE_TOKENS))


def test_downstream_slice_is_neither_trained_on_nor_scored(arena: Arena) -> None:
    dataset = arena.dataset
    trained, reserved = dataset.training_tokens(), dataset.reserved_tokens()
    assert len(reserved) > dataset.seq_len
    assert len(trained) + len(reserved) == len(dataset.tokens("train"))
    whole = np.concatenate([trained, reserved])
    assert (whole == dataset.tokens("train")).all()
