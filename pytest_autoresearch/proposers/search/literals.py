"""Search over the literals of the parent's entry file, without a language model.

A run cannot tell programs apart that differ by little, so values move in steps
(`search_space.Hyperparameter.position`), and a program within half a step of a tried one counts as
tried.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace

from ...core.proposal import Context, Proposal, ProposalInvalid, Proposer, ProposerExhausted
from ...source.brief import declared_space
from ...source.edits import edits_between
from ...source.search_space import Hyperparameter, Value, find, substitute

TRIES = 200

UNKNOWN = ("running", "invalid", "duplicate", "infra", "interrupted")
"""Verdicts that say nothing of a program's quality."""

HALF_STEP = 0.5

Space = Mapping[str, Hyperparameter]

Values = Mapping[str, Value]

Strategy = Callable[[Context, Space, random.Random], Values]
"""Picks new values for some parameters; is called again if it repeats itself."""


def space(context: Context) -> Space:
    """Return the search space of the parent's entry file, by name.

    Ranges and scales are those of the first program, so that they do not depend on the value that
    is changed; those of logarithms extend with it.

    Raises:
        ProposerExhausted: The file has no literal to vary.
    """
    file, declared = context.experiment.files[0], overrides(context)
    parameters = {one.name: one for one in find(context.files[file], declared, context.cuda)}
    if not parameters:
        raise ProposerExhausted(f"{file} has no literal that can be varied")
    with suppress(SyntaxError):
        for first in find(context.history[0].read_files().get(file, ""), declared, context.cuda):
            now = parameters.get(first.name)
            if now and _form(now) == _form(first):
                low, high = first.low, first.high
                if first.log:
                    low, high = min(low, now.low), max(high, now.high)
                parameters[first.name] = replace(
                    first, value=now.value, span=now.span, low=low, high=high
                )
    return parameters


def _form(parameter: Hyperparameter) -> tuple[type, bool]:
    return type(parameter.value), bool(parameter.choices)


def overrides(context: Context) -> Mapping[str, object]:
    """Return the ranges that program.md and the experiment declare."""
    return {**declared_space(context.program), **context.experiment.search_space}


def structure(source: str, parameters: Space) -> str:
    """Return a digest of a program without its hyperparameters' values."""
    text = substitute(source, parameters, dict.fromkeys(parameters, 0))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def tried(context: Context, parameters: Space) -> list[Values]:
    """Return the settings of earlier attempts on programs of the parent's structure, its own first.

    Those of attempts that edited other things, too, are not among them, but for the first program.
    """
    file = context.experiment.files[0]
    own = structure(context.files[file], parameters)
    found = [{name: one.value for name, one in parameters.items()}]
    with suppress(SyntaxError):
        text = context.history[0].read_files().get(file, "")
        first = {one.name: one for one in find(text, overrides(context), context.cuda)}
        if structure(text, first) == own:
            found.append({name: one.value for name, one in first.items()})
    return found + [
        attempt.meta["params"]
        for attempt in context.history
        if attempt.meta.get("structure") == own and "params" in attempt.meta
    ]


def near(parameters: Space, one: Values, other: Values) -> bool:
    """Return whether two settings differ by less than half a step everywhere."""
    return all(
        abs(parameter.position(one[name]) - parameter.position(other[name])) < HALF_STEP
        for name, parameter in parameters.items()
        if name in one and name in other
    )


def proposal_of(
    context: Context, parameters: Space, changes: Values, name: str, hypothesis: str = ""
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
        hypothesis,
        proposer=name,
        meta={
            "changes": dict(changes),
            "params": values,
            "structure": structure(source, parameters),
        },
    )


class LiteralSearch(Proposer):
    """Proposes what a strategy picks; deterministic in (campaign seed, attempt, history)."""

    def __init__(self, name: str, strategy: Strategy) -> None:
        self.name = name
        self._strategy = strategy

    def propose(self, context: Context) -> Proposal:
        """Return changes of at least half a step from everything that was tried."""
        parameters = space(context)
        known = tried(context, parameters)
        current = known[0]
        rng = random.Random(f"{context.seed}/{context.attempt}/{self.name}")
        for i in range(TRIES):
            if i < TRIES // 2:
                picked = self._strategy(context, parameters, rng)
            else:  # all that the strategy would try was tried
                picked = jump(parameters, rng)
            changes = {key: new for key, new in picked.items() if new != current[key]}
            values = {**current, **changes}
            if changes and not any(near(parameters, values, one) for one in known):
                return proposal_of(context, parameters, changes, self.name)
        raise ProposerExhausted(f"{self.name} finds no setting that was not tried")


def is_large(parameter: Hyperparameter) -> bool:
    """Return whether a step is a large change: a choice, or a small integer such as a depth."""
    return bool(parameter.choices) or (parameter.is_int and not parameter.log)


def first_step(parameter: Hyperparameter) -> float:
    """Return the width of a first step: two for a float, so that it doubles or halves a rate."""
    return 1.0 if is_large(parameter) else 2.0


def stepped(parameter: Hyperparameter, value: Value, by: float) -> Value | None:
    """Return the value so many steps from another one, or None if the range ends before."""
    start = parameter.position(value)
    new = parameter.at(start + by)
    moved = (parameter.position(new) - start) * math.copysign(1.0, by)
    # a range may end inside of a long step, but what is left must be a whole one
    return new if new != value and moved > min(abs(by), 1.0) - 0.02 else None


def grid(parameter: Hyperparameter) -> Sequence[Value]:
    """Return all values in whole steps from the current one, and the current one."""
    if not parameter.ordered:
        return tuple(dict.fromkeys((*parameter.choices, parameter.value)))

    def walk(by: float) -> Iterator[Value]:
        value = stepped(parameter, parameter.value, by)
        while value is not None:
            yield value
            value = stepped(parameter, value, by)

    return (parameter.value, *walk(-1.0), *walk(1.0))


def jump(parameters: Space, rng: random.Random) -> Values:
    """Draw new values for one to three parameters."""
    names = rng.sample(sorted(parameters), min(len(parameters), rng.randint(1, 3)))
    return {name: rng.choice(grid(parameters[name])) for name in names}


def ratchet(context: Context, parameters: Space, rng: random.Random) -> Values:
    """Change one parameter by a step, preferably a constant in capitals.

    Choices and integers come first: they have the large effects. A direction in which a step was
    discarded is not followed further.
    """
    names = [name for name, p in parameters.items() if p.upper or rng.random() < 0.1]
    large = [name for name in names if is_large(parameters[name])]
    name = rng.choice(large if large and rng.random() < 0.5 else names or list(parameters))
    parameter = parameters[name]
    if not parameter.ordered:
        return {name: rng.choice(grid(parameter))}
    by = rng.choice((-1, 1)) * first_step(parameter) * rng.choice((1.0, 1.0, 0.5, 2.0))
    by = math.copysign(max(1.0, abs(by)), by)
    if (new := stepped(parameter, parameter.value, by)) is None or lost(context, parameter, new):
        return {}
    return {name: new}


def lost(context: Context, parameter: Hyperparameter, new: Value) -> bool:
    """Return whether a step in this direction, of this parameter alone, has lost already."""
    start, end = parameter.position(parameter.value), parameter.position(new)
    gains = {one.attempt_id: one.gain for one in context.history if one.verdict == "discard"}
    for attempt in context.history:
        changes = attempt.meta.get("changes", {})
        if list(changes) != [parameter.name] or attempt.verdict in UNKNOWN:
            continue
        at = parameter.position(changes[parameter.name])
        before = gains.get(attempt.parent or 0) or 0.0  # both over the same champion
        worse = attempt.gain is None or attempt.gain < before
        if worse and (start < at <= end or end <= at < start):
            return True
    return False


def uniform(context: Context, parameters: Space, rng: random.Random) -> Values:
    """Draw every constant at random: the control that any other proposer must beat."""
    return {name: rng.choice(grid(p)) for name, p in parameters.items() if p.upper}
