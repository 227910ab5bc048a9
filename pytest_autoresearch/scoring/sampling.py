"""Which positions are audited, and what the audit says about all of them.

Half of the draws are uniform, half proportional to a size: how far a claim lies below the
champion's stored loss, which is where a forgery of a given gain must show. The estimator is
Horvitz and Thompson's in its form for draws with replacement (Hansen and Hurwitz 1943), with both
halves weighted as one mixture (the balance heuristic of Veach and Guibas 1995). It is unbiased
whatever was claimed, and because every position has at least half the uniform chance, no weight
exceeds 2.
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
    """A generator seeded by the operating system; nothing outside this process can predict it."""
    return np.random.default_rng(int.from_bytes(os.urandom(32), "little"))


@dataclass(frozen=True)
class Sample:
    """Drawn members of a population of n.

    Attributes:
        members: (m,) indices into the population; one may occur twice.
        weights: (m,) importance of each draw, 1 / (n p); the mean over draws of
            ``weights * value[members]`` estimates the population's mean value without bias.
    """

    members: Ints
    weights: Floats

    def mean(self, values: Floats) -> tuple[float, float]:
        """Estimate the population's mean from the values of the drawn members.

        Returns:
            The estimate and its standard error. The error is that of independent draws from the
            mixture, which the fixed halves do not exceed.
        """
        weighted = self.weights * values
        spread = weighted.std(ddof=1) if len(weighted) > 1 else 0.0
        return float(weighted.mean()), float(spread / np.sqrt(len(weighted)))


def mixture(sizes: Floats) -> Floats:
    """Chance of each member in one draw: half uniform, half in proportion to `sizes`.

    Args:
        sizes: (n,) sizes, >= 0. If all are zero, every draw is uniform.
    """
    uniform = np.full(len(sizes), 1 / len(sizes))
    total = sizes.sum()
    return uniform if total <= 0 else 0.5 * uniform + 0.5 * sizes / total


def draw(sizes: Floats, m: int, generator: np.random.Generator) -> Sample:
    """Draw m members with replacement: half of them uniformly, half by size.

    Args:
        sizes: (n,) sizes, finite and >= 0, not empty.
        m: Number of draws, even.
        generator: Source of randomness.

    Raises:
        ValueError: If the population or the sample is empty, or the sizes are no sizes.
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
    """Number the rounds in which positions are asked for, so that no answer is shown early.

    Auditing the target with number g in the stream shows the tokens from the start of its row up
    to g - 1. Within a row these hold the targets of earlier positions; a row's first token is the
    last target of the row before. Such a position must be answered, and its answer taken, first.

    Args:
        tokens: (m,) numbers of the audited targets in the split's stream (row * T + position + 1).
        seq_len: T, tokens of a row.

    Returns:
        (m,) round of each, from 0.
    """
    result = np.zeros(len(tokens), np.int64)
    last: dict[int, tuple[int, int]] = {}  # row -> its latest target, and the round of that
    for i in np.argsort(tokens, kind="stable"):
        target = int(tokens[i])
        row = (target - 1) // seq_len
        when = 0
        if row in last:
            previous, when = last[row]
            when += previous < target
        elif row - 1 in last and last[row - 1][0] == row * seq_len:
            when = last[row - 1][1] + 1
        result[i] = when
        last[row] = (target, when)
    return result
