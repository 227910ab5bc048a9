"""Downstream task: greedy cloze accuracy on a reserved slice, and a generated sample.

Both are shown beside val_bpb, which averages over all tokens. The slice is the end of the training
split, which the data loader never yields; it is not secret, and no score depends on it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..data.dataset import Dataset
from .evaluator import Start
from .process import Allowance, Scorer

ROWS = 512
"""Contexts of the cloze test: an accuracy of 0.3 has a standard error of 0.02."""

SAMPLE_TOKENS = 48

PROMPT = "def "


@dataclass(frozen=True)
class Downstream:
    """Share of contexts whose next token is ranked first, and a continuation of `PROMPT`."""

    accuracy: float
    rows: int
    sample: str


def downstream(
    start: Start, dataset: Dataset, *, batch: int = 64, wall_limit_s: float = 300.0
) -> Downstream | None:
    """Run the task in a new scoring process; return None if the data set has no reserved slice.

    Arguments and exceptions are those of `evaluator.evaluate`.
    """
    reserved = np.asarray(dataset.reserved_tokens())
    length = dataset.seq_len
    if len(reserved) <= length:
        return None
    starts = np.linspace(0, len(reserved) - length - 1, ROWS).astype(int)
    contexts = np.stack([reserved[s : s + length] for s in starts])
    targets = np.array([reserved[s + length] for s in starts])
    encoding = dataset.encoding()
    text = list(encoding.encode(PROMPT))
    with Scorer(start, dataset.vocab_size, Allowance(None, wall_limit_s), secret=False) as scorer:
        rows = scorer.audit(contexts, [length - 1] * ROWS, batch)
        for _ in range(SAMPLE_TOKENS):
            window = np.array([text[-length:]], dtype=contexts.dtype)
            text.append(int(scorer.logits(window)[0, -1].argmax()))
    accuracy = float((rows.argmax(axis=1) == targets).mean())
    return Downstream(accuracy, ROWS, encoding.decode(text, errors="replace"))
