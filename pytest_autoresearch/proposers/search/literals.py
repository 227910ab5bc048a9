"""Search over the literals of the parent's entry file, without a language model."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping

from ...core.proposal import Context, Proposal, ProposalInvalid, Proposer, ProposerExhausted
from ...source.brief import declared_space
from ...source.edits import edits_between
from ...source.search_space import Hyperparameter, Value, find, substitute

TRIES = 200

Space = Mapping[str, Hyperparameter]

Strategy = Callable[[Context, Space, random.Random], Mapping[str, Value]]
"""Picks new values for some parameters; is called again if it repeats itself."""


def space(context: Context) -> Space:
    """Return the search space of the parent's entry file, by name.

    Raises:
        ProposerExhausted: The file has no literal to vary.
    """
    source = context.files[context.experiment.files[0]]
    overrides = {**declared_space(context.program), **context.experiment.search_space}
    parameters = {parameter.name: parameter for parameter in find(source, overrides)}
    if not parameters:
        raise ProposerExhausted(f"{context.experiment.files[0]} has no literal that can be varied")
    return parameters


def tried(context: Context) -> set[tuple[tuple[str, Value], ...]]:
    """Return the changes already tried on the same parent, each sorted by name."""
    return {
        tuple(sorted(attempt.meta["changes"].items()))
        for attempt in context.history
        if attempt.parent == context.parent.attempt_id and "changes" in attempt.meta
    }


def proposal_of(
    context: Context, parameters: Space, changes: Mapping[str, Value], name: str
) -> Proposal:
    """Return the proposal that sets `changes`.

    Raises:
        ProposalInvalid: The parent's file cannot take them.
    """
    file = context.experiment.files[0]
    source = context.files[file]
    try:
        text = substitute(source, parameters, changes)
    except SyntaxError as error:
        raise ProposalInvalid(f"{file}: {error}") from None
    title = ", ".join(f"{key} {parameters[key].value} -> {value}" for key, value in changes.items())
    values = {key: parameter.value for key, parameter in parameters.items()} | dict(changes)
    return Proposal(
        title[:100],
        edits_between(source, text, file),
        proposer=name,
        meta={"changes": dict(changes), "params": values},
    )


class LiteralSearch(Proposer):
    """Proposes what a strategy picks; deterministic in (campaign seed, attempt, history)."""

    def __init__(self, name: str, strategy: Strategy) -> None:
        self.name = name
        self._strategy = strategy

    def propose(self, context: Context) -> Proposal:
        """Return changes that were not tried on this parent before."""
        parameters, known = space(context), tried(context)
        rng = random.Random(f"{context.seed}/{context.attempt}/{self.name}")
        for _ in range(TRIES):
            picked = self._strategy(context, parameters, rng)
            changes = {key: new for key, new in picked.items() if new != parameters[key].value}
            if changes and tuple(sorted(changes.items())) not in known:
                return proposal_of(context, parameters, changes, self.name)
        raise ProposerExhausted(f"{self.name} finds no setting that was not tried")


def draw(parameter: Hyperparameter, rng: random.Random) -> Value:
    """Draw a value uniformly from a parameter's choices or range."""
    if parameter.choices:
        return rng.choice(parameter.choices)
    low, high = parameter.low, parameter.high
    if parameter.log:
        return parameter.clip(math.exp(rng.uniform(math.log(low), math.log(high))))
    return parameter.clip(rng.uniform(low, high))


def nudge(parameter: Hyperparameter, rng: random.Random) -> Value:
    """Draw a value near the current one."""
    if parameter.choices or isinstance(parameter.value, str):
        return draw(parameter, rng)
    if parameter.log:
        return parameter.clip(parameter.value * 2 ** rng.gauss(0, 0.8))
    if parameter.is_int:
        return parameter.clip(parameter.value + rng.choice((-2, -1, 1, 2)))
    return parameter.clip(parameter.value + rng.gauss(0, 0.2 * (parameter.high - parameter.low)))


def ratchet(context: Context, parameters: Space, rng: random.Random) -> Mapping[str, Value]:
    """Change one parameter, preferably a constant in capitals."""
    names = [name for name, p in parameters.items() if p.upper or rng.random() < 0.3]
    name = rng.choice(names or list(parameters))
    return {name: nudge(parameters[name], rng)}


def uniform(context: Context, parameters: Space, rng: random.Random) -> Mapping[str, Value]:
    """Draw every constant at random: the control that any other proposer must beat."""
    return {name: draw(p, rng) for name, p in parameters.items() if p.upper}
