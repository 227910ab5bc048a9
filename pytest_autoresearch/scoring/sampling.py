"""Sampling of audited positions, and the estimate of the mean over all positions.

Half of the draws are uniform, half proportional to a size: how far a claim is below the champion's
stored loss, where a forgery of a given gain must appear. The estimator is that of Hansen and
Hurwitz (1943) for draws with replacement, with both halves weighted as one mixture (the balance
heuristic of Veach and Guibas 1995). It is unbiased for any claims, and because every position has
at least half the uniform probability, no weight exceeds 2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

Ints = npt.NDArray[np.int64]


def secret_generator() -> np.random.Generator:
    """Return a generator seeded by the operating system, which candidates cannot predict."""
    return np.random.default_rng(int.from_bytes(os.urandom(32), "little"))


@dataclass(frozen=True)
class Sample:
    """Drawn members of a population of n.

    Attributes:
        members: (m,) indices into the population, possibly repeated.
        weights: (m,) importance of each draw, 1 / (n p).
    """

    members: Ints
    weights: Floats

    def mean(self, values: Floats) -> tuple[float, float]:
        """Estimate the population's mean from the values of the drawn members, without bias.

        Returns:
            The estimate, and a standard error that is at least its own.
        """
        weighted = self.weights * values
        spread = weighted.std(ddof=1) if len(weighted) > 1 else 0.0
        return float(weighted.mean()), float(spread / np.sqrt(len(weighted)))


def mixture(sizes: Floats) -> Floats:
    """Compute each member's probability in one draw: half uniform, half proportional to `sizes`.

    If all sizes are zero, every draw is uniform.
    """
    uniform = np.full(len(sizes), 1 / len(sizes))
    total = sizes.sum()
    return uniform if total <= 0 else 0.5 * uniform + 0.5 * sizes / total


def draw(sizes: Floats, m: int, generator: np.random.Generator) -> Sample:
    """Draw m members with replacement: half of them uniformly, half by size.

    Raises:
        ValueError: The population or the sample is empty, `m` is odd, or a size is negative or
            not finite.
    """
    n = len(sizes)
    if n == 0 or m < 2 or m % 2:
        raise ValueError(f"cannot draw {m} of {n} positions; draw an even number from at least one")
    if not (np.isfinite(sizes).all() and (sizes >= 0).all()):
        raise ValueError("sizes must be finite and not negative")
    uniform = generator.integers(n, size=m // 2)
    edges = np.cumsum(sizes)
    if edges[-1] > 0:
        ticks = generator.random(m // 2) * edges[-1]
        by_size = np.minimum(np.searchsorted(edges, ticks, side="right"), n - 1)
    else:
        by_size = generator.integers(n, size=m // 2)
    members = np.concatenate([uniform, by_size])
    return Sample(members, 1 / (n * mixture(sizes)[members]))


def rounds(tokens: npt.NDArray[Any], seq_len: int) -> Ints:
    """Assign positions to rounds of requests, from 0, so that no answer is revealed in advance.

    Auditing the target with number g in the stream reveals the tokens from the start of its row up
    to g - 1. These include the targets of earlier positions of the row, and the first token is the
    last target of the previous row. Such positions must be answered in an earlier round.

    Args:
        tokens: (m,) numbers of the audited targets in the split's stream (row * T + position + 1).
        seq_len: T, tokens of a row.
    """
    result = np.zeros(len(tokens), np.int64)
    last: dict[int, tuple[int, int]] = {}  # row -> its latest target and that target's round
    for i in np.argsort(tokens, kind="stable"):
        target = int(tokens[i])
        row = (target - 1) // seq_len
        number = 0
        if row in last:
            previous, number = last[row]
            number += previous < target
        elif row - 1 in last and last[row - 1][0] == row * seq_len:
            number = last[row - 1][1] + 1
        result[i] = number
        last[row] = (target, number)
    return result
