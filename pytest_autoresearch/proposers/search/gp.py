"""Search over the literals of the parent's file with a Gaussian process of additive effects.

Every proposal is the best combination of steps seen so far, and a step of one more hyperparameter
where that promises more. So single effects are seen on top of each other, and effects that are each
too small for the judge are kept together. The model is fitted to the ledger's history for every
proposal, so there is one truth.
"""

from __future__ import annotations

import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from ...core.proposal import Context, Proposal, Proposer, ProposerExhausted
from ...source.search_space import Hyperparameter, Value
from .effects import Array, Axes, Effects, Programs
from .literals import (
    HALF_STEP,
    Space,
    Values,
    first_step,
    grid,
    is_large,
    jump,
    proposal_of,
    space,
    stepped,
    structure,
    tried,
)
from .observations import Observations, Program, Reader, Table

MAX_PARAMETERS = 24

LARGE, RATE, OTHER, INNER = 2.5, 1.0, 0.7, 0.4
"""Prior sizes of the effects: choices of numbers and integers, learning rates, other constants, and
literals inside of functions. The first steps come in this order."""

BAR = 2.5
"""Standard errors above which a gain is assumed to be kept."""

EXPLORE = 1.0
"""Weight of what a step would add to later proposals, beside the gain that is kept at once."""

SURE = 0.2
"""A step joins the combination if its mean gain is above this share of its standard deviation."""

JUMPS = 100
"""Random combinations to choose from when all single steps were tried."""


class GaussianProcess(Proposer):
    """Proposes the program with the largest expected gain, at once or in later combinations."""

    name = "gp"

    def __init__(self) -> None:
        self._reader = Reader()

    def propose(self, context: Context) -> Proposal:
        """Return the next program, as changes to the parent's file.

        Raises:
            ProposerExhausted: All programs of the search space were tried.
        """
        every = space(context)
        search = _Search(context, every, self._reader)
        best = search.combination()
        options = search.untried([best, *search.probes(best)])
        if not options:
            rng = random.Random(f"{context.seed}/{context.attempt}/gp")
            options = search.untried([{**best, **jump(every, rng)} for _ in range(JUMPS)])
        if not options:
            raise ProposerExhausted("gp finds no setting that was not tried")
        chosen, hypothesis = search.choose(options, best)
        changes = {name: new for name, new in chosen.items() if new != every[name].value}
        return proposal_of(context, every, changes, self.name, hypothesis)


class _Search:
    """One proposal: the model, and what was tried."""

    def __init__(self, context: Context, every: Space, reader: Reader) -> None:
        names = sorted(every, key=lambda name: not every[name].upper)[:MAX_PARAMETERS]
        self._space = {name: every[name] for name in names}
        self._table = Table(self._space)
        self._sigma = context.sigma or 1e-3 * abs(context.champion.score or 1.0)
        source = context.files[context.experiment.files[0]]
        values = {name: one.value for name, one in every.items()}
        self._parent: Program = structure(source, every), values
        champion = reader.program(context, context.champion) or self._parent
        self._champion = self._table.programs([champion])
        settings: list[Program] = [("", values) for values in tried(context, every)]
        self._tried = self._table.programs(settings).at
        first = reader.program(context, context.history[0]) or self._parent
        axes = Axes(
            np.array([size(one) for one in self._space.values()]),
            np.array([first_step(one) for one in self._space.values()]),
            np.array([one.ordered for one in self._space.values()]),
            self._table.programs([first]).at[0],
        )
        seen = Observations(context, self._table, reader, self._sigma)
        self._seen, self._count = seen.seen, int((~seen.running).sum())
        self._model = Effects(axes, seen.gains.where(~seen.running), self._sigma)
        if seen.running.any():  # assume that what runs now ends as expected
            expected, _ = self._model.predict(seen.gains.programs, seen.gains.champions)
            gain = np.where(seen.running, expected, seen.gains.gain)
            self._model = Effects(axes, replace(seen.gains, gain=gain), self._sigma)

    def combination(self) -> Values:
        """Return the parent's values with those that have gained, without those that have lost."""
        best = {name: self._parent[1][name] for name in self._space}
        for _ in range(2):
            for name, seen in self._seen.items():
                others = [{**best, name: value} for value in seen.values()]
                others = [one for one in others if one != best]
                if not others:
                    continue
                gain, deviation = self._model.predict(*self._pairs(others, [best]))
                lower = gain - SURE * deviation
                if lower.max() > 0:
                    best = others[int(lower.argmax())]
        return best

    def probes(self, best: Values) -> list[Values]:
        """Return `best` with one hyperparameter at a value that no program had."""
        return [
            {**best, name: value}
            for name, parameter in self._space.items()
            for value in self._steps(parameter, best[name])
        ]

    def _steps(self, parameter: Hyperparameter, value: Value) -> Iterator[Value]:
        """Yield values to try: first steps, and halves of steps that did not help.

        A step that helped is the value itself; beyond one that did not help nothing is tried.
        """
        seen = [*self._seen[parameter.name].values(), value]
        if not parameter.ordered:
            yield from (other for other in grid(parameter) if other not in seen)
            return
        start = parameter.position(value)
        for sign in (-1.0, 1.0):
            away = [sign * (parameter.position(one) - start) for one in seen]
            nearest = min((far for far in away if far > HALF_STEP), default=0.0)
            by = max(1.0, nearest / 2) if nearest else first_step(parameter)
            if nearest and nearest < 1.0 + HALF_STEP:
                continue
            if (new := stepped(parameter, value, sign * by)) is not None:
                yield new

    def untried(self, options: Sequence[Values]) -> list[Values]:
        """Return the options that differ from everything tried by half a step somewhere."""
        at = self._programs(options).at
        away = np.abs(at[:, None] - self._tried[None]).max(axis=2).min(axis=1)
        return [one for one, far in zip(options, away, strict=True) if far >= HALF_STEP]

    def choose(self, options: Sequence[Values], best: Values) -> tuple[Values, str]:
        """Return the best option and what is expected of it."""
        programs = self._programs(options)
        gain, deviation = self._model.predict(programs, self._champions(len(options)))
        total = np.hypot(deviation, self._sigma)
        bar = (gain - BAR * self._sigma) / total
        kept = gain * _below(bar) + deviation**2 / total * _density(bar)
        more, spread = self._model.predict(*self._pairs(options, [best]))
        spread = np.maximum(spread, 1e-12)
        later = more * _below(more / spread) + spread * _density(more / spread)
        i = int(np.argmax(kept + EXPLORE * later))
        return options[i], (
            f"A gain of {gain[i]:+.4f} ± {deviation[i]:.4f} is expected from the effects seen in "
            f"{self._count} attempts."
        )

    def _programs(self, options: Sequence[Values]) -> Programs:
        return self._table.programs([(self._parent[0], values) for values in options])

    def _champions(self, count: int) -> Programs:
        return Programs(
            np.repeat(self._champion.at, count, axis=0),
            np.repeat(self._champion.structure, count),
        )

    def _pairs(
        self, options: Sequence[Values], others: Sequence[Values]
    ) -> tuple[Programs, Programs]:
        return self._programs(options), self._programs([*others] * len(options))


def size(parameter: Hyperparameter) -> float:
    """Return the prior size of a hyperparameter's effect, relative to a learning rate's."""
    if not parameter.upper:
        return INNER
    if is_large(parameter):
        return LARGE if parameter.ordered else OTHER
    return RATE if re.search(r"_LR$|^LR|RATE$|LEARNING", parameter.name) else OTHER


def _below(x: Array) -> Array:
    """Return the normal distribution function."""
    from scipy.special import ndtr

    return np.asarray(ndtr(x))


def _density(x: Array) -> Array:
    return np.asarray(np.exp(-x * x / 2) / np.sqrt(2 * np.pi))
