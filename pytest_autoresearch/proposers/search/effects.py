"""A Gaussian process of additive effects, fitted to paired gains.

The program's quality is a sum of one smooth function for each hyperparameter, a smaller function of
all together, and a constant for each structure (the program without its hyperparameters' values).
An attempt is an observation of a difference: its program less its champion's. So gains against
different champions, of attempts that other proposers made and of discards are used alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np
import numpy.typing as npt
from scipy.linalg import solve_triangular

Array = npt.NDArray[np.float64]

LENGTH = 1.5
"""First steps over which the effect of one hyperparameter stays alike."""

JOINT_LENGTH, JOINT = 3.0, 0.5
"""The same of the function of all together, and its size."""

STRUCTURE = 20.0
"""Size of a change of structure, in units of the effects: nothing is known of it before."""

LOSS = 0.2
"""Expected loss of a first change of a hyperparameter, in units of its size: most changes of a
program that works are for the worse."""

SIZES, NOISES = (0.5, 1.0, 2.0, 4.0), (0.4, 0.7, 1.0)
"""Sizes of the effects in sigma, and shares of the judge's noise, of which the likeliest is taken:
literals often scatter less than the structural changes that the judge's sigma covers."""


@dataclass(frozen=True)
class Programs:
    """Programs as points.

    Attributes:
        at: Position of each hyperparameter, in steps; one row for each program.
        structure: Number of each program's structure.
    """

    at: Array
    structure: npt.NDArray[np.int64]

    def where(self, wanted: npt.NDArray[np.bool_]) -> Programs:
        """Return some of the programs."""
        return Programs(self.at[wanted], self.structure[wanted])


@dataclass(frozen=True)
class Axes:
    """The hyperparameters.

    Attributes:
        size: Prior size of each one's effect, relative to the others.
        first: Width of a first step.
        ordered: Whether near positions are alike.
        origin: Positions of the first program.
    """

    size: Array
    first: Array
    ordered: npt.NDArray[np.bool_]
    origin: Array


@dataclass(frozen=True)
class Gains:
    """Attempts as observations.

    Attributes:
        programs, champions: Of each attempt.
        gain: Paired gain.
        error: Standard error of `gain`.
    """

    programs: Programs
    champions: Programs
    gain: Array
    error: Array

    def where(self, wanted: npt.NDArray[np.bool_]) -> Gains:
        """Return some of the attempts."""
        return Gains(
            self.programs.where(wanted), self.champions.where(wanted),
            self.gain[wanted], self.error[wanted],
        )  # fmt: skip


class Effects:
    """The posterior of the effects."""

    def __init__(self, axes: Axes, gains: Gains, sigma: float) -> None:
        """Fit sizes of effects and noise by their likelihood, then the effects.

        Args:
            axes: The hyperparameters.
            gains: What was measured.
            sigma: Unit of the effects' sizes: the noise of a paired difference.
        """
        self._axes, self._gains = axes, gains
        same = np.all(gains.champions.at[:, None] == gains.champions.at[None], axis=2) & (
            gains.champions.structure[:, None] == gains.champions.structure[None]
        )
        # half of a difference's variance is the champion's run, which its attempts share
        shared = 0.5 * same * np.outer(gains.error, gains.error)
        noise = shared + np.diag(0.5 * gains.error**2)
        kernel = self._differences(gains.programs, gains.champions)
        loss = self._loss(gains.programs) - self._loss(gains.champions)
        found = []
        for size, share in product(SIZES, NOISES):
            total = (size * sigma) ** 2 * kernel + share**2 * noise
            root = np.linalg.cholesky(total + 1e-9 * sigma**2 * np.eye(len(total)))
            rest = gains.gain - size * sigma * loss
            white = solve_triangular(root, rest, lower=True)
            likelihood = -0.5 * white @ white - np.log(np.diag(root)).sum()
            # lognormal priors: effects of one to two sigma, the judge's own noise
            prior = -0.5 * (np.log2(size / 1.4) / 0.8) ** 2 - 0.5 * np.log2(share) ** 2
            found.append((likelihood + prior, size * sigma, root, white))
        _, self._size, root, self._white = max(found, key=lambda one: one[0])
        self._whiten = solve_triangular(root, np.eye(len(root)), lower=True)

    def predict(self, programs: Programs, others: Programs) -> tuple[Array, Array]:
        """Return mean and standard deviation of each program's gain over another one."""
        cross = (
            self._kernel(programs, self._gains.programs)
            - self._kernel(programs, self._gains.champions)
            - self._kernel(others, self._gains.programs)
            + self._kernel(others, self._gains.champions)
        )
        # einsum, not BLAS: its threads would spin on cores that train
        white = self._size**2 * np.einsum("ij,kj->ik", self._whiten, cross)
        mean = np.einsum("ij,i->j", white, self._white)
        mean += self._size * (self._loss(programs) - self._loss(others))
        apart = self._alike(programs.at - others.at, programs.structure == others.structure)
        prior = 2 * (self._alike(np.zeros_like(programs.at), True) - apart)
        variance = self._size**2 * prior - np.einsum("ij,ij->j", white, white)
        return mean, np.sqrt(np.maximum(variance, 0.0))

    def _loss(self, programs: Programs) -> Array:
        """Return the expected gain of programs over the first, before anything is known."""
        away = np.minimum(1.0, np.abs(programs.at - self._axes.origin) / self._axes.first)
        return np.asarray(-LOSS * away @ self._axes.size)

    def _kernel(self, one: Programs, two: Programs) -> Array:
        apart = one.at[:, None] - two.at[None]
        return self._alike(apart, one.structure[:, None] == two.structure[None])

    def _alike(self, apart: Array, same: npt.NDArray[np.bool_] | bool) -> Array:
        """Return the prior covariance of programs so many steps apart, in units of the size."""
        unordered = ~self._axes.ordered & (apart != 0)
        square = np.where(unordered, np.inf, (apart / self._axes.first) ** 2)
        single = np.exp(-square / (2 * LENGTH**2)) @ self._axes.size**2
        square = np.where(unordered, 1.0, square)
        joint = np.exp(-square.sum(axis=-1) / (2 * JOINT_LENGTH**2))
        return np.asarray(single + JOINT**2 * joint + STRUCTURE**2 * np.asarray(same))

    def _differences(self, programs: Programs, others: Programs) -> Array:
        return (
            self._kernel(programs, programs)
            - self._kernel(programs, others)
            - self._kernel(others, programs)
            + self._kernel(others, others)
        )
