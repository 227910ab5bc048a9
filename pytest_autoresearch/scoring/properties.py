"""Properties that a model must have to be scored, tested by Hypothesis.

A score is a function of weights and row prefix, so logits at a position must not depend on later
tokens, on other rows, on the batch's size or order, or on previous requests. Hypothesis generates
batches of training text with single changes and shrinks a counterexample to one sentence. This
explains an honest mistake within a second; the audit is the protection.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import HealthCheck, Phase, Verbosity, configuration, given, settings
from hypothesis import strategies as st
from hypothesis.errors import Flaky

from . import CheatDetected
from .process import Losses, Tokens, bounded

Logits = Callable[[Tokens], Losses]

EXAMPLES = 40

EXAMPLES_FIXED_SHAPE = 8

SECONDS = 1.5

SHRINK_SECONDS = 4.0

_MIN_EXAMPLES = 4


@dataclass(frozen=True)
class Row:
    """A row at an offset of the training text, and the tokens of it that change."""

    start: int
    position: int
    width: int


@dataclass(frozen=True)
class Case:
    """A batch of training text and how the second batch differs from it.

    Attributes:
        length: Tokens of a row.
        order: Rows of the second batch: ``"same"``, ``"reversed"``, or the first ``"alone"``.
        shift: Added to changed tokens, modulo the vocabulary.
    """

    length: int
    rows: tuple[Row, ...]
    order: str
    shift: int


class _Broken(AssertionError):
    """A property does not hold; makes Hypothesis shrink the case."""


def check_properties(
    logits: Logits,
    text: npt.NDArray[Any],
    *,
    seq_len: int,
    vocab_size: int,
    tolerance: float,
    fixed_shape: bool = False,
) -> int:
    """Search for a batch on which the model's logits depend on more than the row's prefix.

    Args:
        logits: (n, length) tokens to (n, length, V) logits of the candidate.
        text: Training tokens, longer than a row.
        seq_len: Longest row.
        vocab_size: V.
        tolerance: Largest difference due to rounding, at logits up to 1; in proportion above.
        fixed_shape: Only use two full rows (a compiled model recompiles for every shape).

    Returns:
        Number of examples tested.

    Raises:
        CheatDetected: The smallest counterexample in one sentence.
        ScoringCrash: A logit is not finite or too large, or `logits` raised it.
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

    # Flaky: the model is not deterministic, or no time is left to shrink.
    with _temporary_home(), contextlib.suppress(_Broken, Flaky):
        hold()
    search.refine()
    if search.fatal is not None:
        raise search.fatal
    if search.cheat is not None:
        raise search.cheat
    return search.tried


@contextlib.contextmanager
def _temporary_home() -> Iterator[None]:
    """Keep Hypothesis from writing its cache of constants to the user's repository."""
    before = vars(configuration).get("__hypothesis_home_directory")
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
        configuration.set_hypothesis_home_dir(Path(folder))
        try:
            yield
        finally:
            configuration.set_hypothesis_home_dir(before)


@st.composite
def _cases(
    draw: st.DrawFn, text_length: int, seq_len: int, vocab_size: int, fixed_shape: bool
) -> Case:
    # Half of the batches have full rows, which reveal most violations.
    length = seq_len if fixed_shape else min(draw(st.integers(2, 2 * seq_len)), seq_len)
    rows = []
    for _ in range(2 if fixed_shape else draw(st.integers(2, 4))):
        start = draw(st.integers(0, text_length - length))
        position = draw(st.integers(0, length - 1))
        # Changing all later tokens reveals most; changing one or none explains best.
        rest = length - position
        width = draw(st.sampled_from((0, 1, rest, rest)))
        rows.append(Row(start, position, width))
    orders = ("same", "reversed") if fixed_shape else ("same", "reversed", "alone")
    order = draw(st.sampled_from(orders))
    return Case(length, tuple(rows), order, draw(st.integers(1, vocab_size - 1)))


class _Search:
    """State of one search: number of examples, and the last (smallest) counterexample."""

    def __init__(
        self, logits: Logits, text: npt.NDArray[Any], vocab_size: int, tolerance: float
    ) -> None:
        self.tried = 0
        self.cheat: CheatDetected | None = None
        self.smallest: Case | None = None
        self.fatal: Exception | None = None
        self._logits = logits
        self._text = text
        self._vocab = vocab_size
        self._tolerance = tolerance
        self._deadline = time.monotonic() + SECONDS

    def try_case(self, case: Case) -> None:
        """Raise _Broken if the property does not hold; do nothing once the time is up."""
        late = time.monotonic() > self._deadline
        if self.fatal is not None or (late and (self.cheat or self.tried >= _MIN_EXAMPLES)):
            return
        try:
            sentence, difference = self._difference(case)
        except Exception as error:
            self.fatal = error
            raise _Broken from None
        self.tried += 1
        if sentence:
            if self.cheat is None:
                self._deadline = time.monotonic() + SHRINK_SECONDS
            self.smallest = case
            self.cheat = CheatDetected(
                sentence, {"counterexample": asdict(case), "difference": difference}
            )
            raise _Broken(sentence)

    def refine(self) -> None:
        """Reduce a change of several tokens to a single token if that is enough."""
        for i in range(len(self.smallest.rows) if self.smallest else 0):
            assert self.smallest is not None
            row = self.smallest.rows[i]
            for position in range(row.position, row.position + row.width) if row.width > 1 else ():
                rows = list(self.smallest.rows)
                rows[i] = Row(row.start, position, 1)
                try:
                    self.try_case(replace(self.smallest, rows=tuple(rows)))
                except _Broken:
                    break

    def _difference(self, case: Case) -> tuple[str, float]:
        """Describe the first violation in a sentence, with its size; ('', 0) if there is none."""
        text = [self._text[row.start : row.start + case.length] for row in case.rows]
        x = np.stack(text).astype(np.int64)
        changed = x.copy()
        same = np.ones(x.shape, bool)  # positions whose prefix is the same in both batches
        for i, row in enumerate(case.rows):
            if row.width:
                changed[i, row.position : row.position + row.width] += case.shift
                same[i, row.position :] = False
        rows = np.arange(len(x))
        order = {"same": rows, "reversed": rows[::-1], "alone": rows[:1]}[case.order]
        before = self._answer(x)[order]
        gap = np.abs(self._answer(changed[order] % self._vocab) - before)
        over = gap > self._tolerance * np.maximum(1, np.abs(before))
        wrong = np.argwhere(over.any(axis=2) & same[order])
        if not len(wrong):
            return "", 0.0
        at, position = (int(number) for number in wrong[0])
        return _sentence(case, int(order[at]), position), float(gap[at, position].max())

    def _answer(self, x: npt.NDArray[np.int64]) -> Losses:
        rows = f"training text ({len(x)} rows of {x.shape[1]} tokens)"
        return bounded(self._logits(x.astype(np.uint16)), rows)


def _sentence(case: Case, row: int, position: int) -> str:
    causes, where = [], ""
    for i, change in enumerate(case.rows):
        if change.width:
            last = change.position + change.width - 1
            many = f"tokens {change.position} to {last} change"
            causes.append(f"token {last} changes" if change.width == 1 else many)
            where = where if i == row else " of another row"
    if case.order != "same":
        causes.append(
            {"reversed": "the rows are reversed", "alone": "other rows are removed"}[case.order]
        )
    if not causes:
        return f"logits at position {position} differ when the same batch is given twice"
    return f"logits at position {position}{where} change when {' and '.join(causes)}"
