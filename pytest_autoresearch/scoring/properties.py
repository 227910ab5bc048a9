"""What every model must be before its losses mean anything, tried by Hypothesis.

A score is defined by weights and row prefix. So logits at a position must not depend on later
tokens, on other rows, on the batch's size or order, or on what was asked before. Hypothesis
generates batches of training text and single changes to them, and shrinks what it finds to one
sentence. This explains a mistake in a second; what it misses, the audit does not.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, Phase, Verbosity, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from . import CheatDetected, ScoringCrash
from .remote import Losses, Tokens

Logits = Callable[[Tokens], Losses]

EXAMPLES = 25
EXAMPLES_FIXED_SHAPE = 6
SECONDS = 1.5
SHRINK_SECONDS = 4.0
_AT_LEAST = 4


@dataclass(frozen=True)
class Case:
    """One batch of training text and what is done to it.

    Attributes:
        kind: ``"repeat"``: the same again; ``"change"``: other tokens in one row;
            ``"reorder"``: the rows reversed; ``"alone"``: one row without the others.
        length: Tokens of a row.
        starts: Where in the training text each row begins.
        row: The row that is changed, or left alone.
        position: First changed token.
        width: How many tokens change.
        shift: Added to them, modulo the vocabulary.
    """

    kind: str
    length: int
    starts: tuple[int, ...]
    row: int
    position: int
    width: int
    shift: int


class _Broken(AssertionError):
    """A property does not hold; tells Hypothesis to shrink."""


def check_properties(
    logits: Logits,
    text: npt.NDArray[Any],
    *,
    seq_len: int,
    vocab_size: int,
    tolerance: float,
    fixed_shape: bool = False,
) -> int:
    """Look for a batch on which the model's logits depend on what they must not.

    Args:
        logits: (n, length) tokens to (n, length, V) logits of the candidate.
        text: Training tokens, longer than a row.
        seq_len: Longest row.
        vocab_size: V.
        tolerance: Largest difference that is rounding, at logits up to 1; in proportion above.
        fixed_shape: Keep to two full rows (a compiled model compiles anew for every shape).

    Returns:
        Examples tried.

    Raises:
        CheatDetected: With the smallest counterexample found, in one sentence.
        ScoringCrash: The logits are not finite, or `logits` raised it.
    """
    search = _Search(logits, text, vocab_size, tolerance)
    strategy = _cases(len(text), seq_len, vocab_size, fixed_shape)

    @settings(
        max_examples=EXAMPLES_FIXED_SHAPE if fixed_shape else EXAMPLES,
        database=None,
        deadline=None,
        derandomize=False,
        phases=(Phase.generate, Phase.shrink),
        report_multiple_bugs=False,
        print_blob=False,
        verbosity=Verbosity.quiet,
        suppress_health_check=list(HealthCheck),
    )
    @given(case=strategy)
    def hold(case: Case) -> None:
        search.try_case(case)

    # Flaky: a model that is not deterministic, or no time left to shrink.
    with contextlib.suppress(_Broken, Flaky):
        hold()
    if search.fatal is not None:
        raise search.fatal
    if search.found is not None:
        raise search.found
    return search.tried


@st.composite
def _cases(
    draw: st.DrawFn, text_length: int, seq_len: int, vocab_size: int, fixed_shape: bool
) -> Case:
    kinds = ("repeat", "change", "reorder", "alone")
    kind = draw(st.sampled_from(kinds[:3] if fixed_shape else kinds))
    length = seq_len if fixed_shape else draw(st.integers(min(2, seq_len), seq_len))
    rows = 2 if fixed_shape else draw(st.integers(2, 4))
    starts = st.integers(0, text_length - length)
    position = draw(st.integers(0, length - 1))
    return Case(
        kind=kind,
        length=length,
        starts=tuple(draw(starts) for _ in range(rows)),
        row=draw(st.integers(0, rows - 1)),
        position=position,
        width=draw(st.integers(1, length - position)),
        shift=draw(st.integers(1, vocab_size - 1)),
    )


class _Search:
    """State of one search: what was tried, the last and so smallest counterexample."""

    def __init__(
        self, logits: Logits, text: npt.NDArray[Any], vocab_size: int, tolerance: float
    ) -> None:
        self.tried = 0
        self.found: CheatDetected | None = None
        self.fatal: Exception | None = None
        self._logits = logits
        self._text = text
        self._vocab_size = vocab_size
        self._tolerance = tolerance
        self._deadline = time.monotonic() + SECONDS

    def try_case(self, case: Case) -> None:
        """Raise _Broken if the property does not hold; do nothing once time is over."""
        late = time.monotonic() > self._deadline
        if self.fatal is not None or (late and (self.found or self.tried >= _AT_LEAST)):
            return
        try:
            sentence, difference = self._difference(case)
        except Exception as error:
            self.fatal = error
            raise _Broken from None
        self.tried += 1
        if sentence:
            if self.found is None:
                self._deadline = time.monotonic() + SHRINK_SECONDS
            self.found = CheatDetected(
                sentence, {"property": case.kind, "difference": difference, **asdict(case)}
            )
            raise _Broken(sentence)

    def _difference(self, case: Case) -> tuple[str, float]:
        """The first difference that must not be, in a sentence, and its size; '' if none."""
        for sentence, before, after in self._comparisons(case):
            gap = np.abs(after - before)
            over = gap > self._tolerance * np.maximum(1, np.abs(before))
            if over.any():
                position = int(np.argwhere(over.any(axis=(0, 2)))[0, 0])
                return sentence.format(position), float(gap[over].max())
        return "", 0.0

    def _comparisons(self, case: Case) -> Iterator[tuple[str, Losses, Losses]]:
        """Sentences with what would prove them wrong: (rows, positions, V) before and after."""
        x = np.stack([self._text[s : s + case.length] for s in case.starts]).astype(np.uint16)
        before = self._finite(x)
        only = slice(case.row, case.row + 1)
        if case.kind == "repeat":
            after = self._finite(x)
            yield "logits at position {} differ when one batch is given twice", before, after
        elif case.kind == "reorder":
            after = self._finite(x[::-1])[::-1]
            yield "logits at position {} change when the rows are reversed", before, after
        elif case.kind == "alone":
            alone = self._finite(x[only])
            yield "logits at position {} change when the other rows go", before[only], alone
        else:
            span = slice(case.position, case.position + case.width)
            changed = x.copy()
            changed[only, span] = (x[only, span].astype(np.int64) + case.shift) % self._vocab_size
            after = self._finite(changed)
            last = case.position + case.width - 1
            what = f"token {last} changes"
            if case.width > 1:
                what = f"tokens {case.position} to {last} change"
            earlier = slice(0, case.position)
            yield (
                f"logits at position {{}} change when {what}",
                before[only, earlier],
                after[only, earlier],
            )
            others = np.arange(len(x)) != case.row
            yield (
                f"logits at position {{}} of one row change when {what} in another",
                before[others],
                after[others],
            )

    def _finite(self, x: Tokens) -> Losses:
        logits = self._logits(x)
        if not np.isfinite(logits).all():
            raise ScoringCrash(
                f"logits() is not finite on training text ({len(x)} rows of {x.shape[1]} tokens)"
            )
        return logits
