"""Proposers that need no key: they turn the literals of the parent's entry file."""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Protocol

from ...core.proposal import Context, Proposal, ProposalInvalid, ProposerExhausted
from ...source.brief import knobs as declared
from ...source.edits import edits_between
from ...source.search_space import Knob, Value, find, turn

TRIES = 200


class Chooser(Protocol):
    """Picks new values for some knobs."""

    def __call__(
        self, context: Context, knobs: Mapping[str, Knob], rng: random.Random
    ) -> Mapping[str, Value]:
        """Return name to value; may repeat itself, which is then asked again."""
        ...


def space(context: Context) -> dict[str, Knob]:
    """Return the knobs of the parent's entry file, by name.

    Raises:
        ProposerExhausted: There is none to turn.
    """
    source = context.files[context.experiment.files[0]]
    overrides = {**declared(context.program), **context.experiment.knobs}
    found = {knob.name: knob for knob in find(source, overrides)}
    if not found:
        raise ProposerExhausted(f"{context.experiment.files[0]} has no literal that can be turned")
    return found


def tried(context: Context) -> set[tuple[tuple[str, Value], ...]]:
    """Return the settings already tried, each as sorted changes from the same parent."""
    return {
        tuple(sorted((name, value) for name, value in attempt.meta["changes"].items()))
        for attempt in context.history
        if attempt.parent == context.parent.attempt_id and "changes" in attempt.meta
    }


def proposal_of(
    context: Context, knobs: Mapping[str, Knob], changes: Mapping[str, Value], name: str
) -> Proposal:
    """Return the proposal that sets `changes`.

    Raises:
        ProposalInvalid: The parent's file cannot take them.
    """
    file = context.experiment.files[0]
    source = context.files[file]
    try:
        text = turn(source, knobs, changes)
    except SyntaxError as error:
        raise ProposalInvalid(f"{file}: {error}") from None
    title = ", ".join(f"{key} {knobs[key].value} -> {value}" for key, value in changes.items())
    params = {key: knob.value for key, knob in knobs.items()} | dict(changes)
    return Proposal(
        title[:100],
        edits_between(source, text, file),
        proposer=name,
        meta={"changes": dict(changes), "params": params},
    )


class Keyless:
    """A proposer around a `Chooser`; deterministic in (campaign seed, attempt, history)."""

    def __init__(self, name: str, choose: Chooser) -> None:
        self.name = name
        self._choose = choose

    def propose(self, context: Context) -> Proposal:
        """Return changes that were not tried on this parent before."""
        knobs, known = space(context), tried(context)
        rng = random.Random(f"{context.seed}/{context.attempt}/{self.name}")
        for _ in range(TRIES):
            changes = {
                key: value
                for key, value in self._choose(context, knobs, rng).items()
                if value != knobs[key].value
            }
            if changes and tuple(sorted(changes.items())) not in known:
                return proposal_of(context, knobs, changes, self.name)
        raise ProposerExhausted(f"{self.name} finds no setting that was not tried")

    def close(self) -> None:
        """Nothing to release."""


def draw(knob: Knob, rng: random.Random) -> Value:
    """Draw a value uniformly from a knob's choices or range."""
    if knob.choices:
        return rng.choice(knob.choices)
    if knob.log:
        return knob.clip(math.exp(rng.uniform(math.log(knob.low), math.log(knob.high))))
    return knob.clip(rng.uniform(knob.low, knob.high))


def nudge(knob: Knob, rng: random.Random) -> Value:
    """Draw a value near the one that stands."""
    if knob.choices or isinstance(knob.value, str):
        return draw(knob, rng)
    if knob.log:
        return knob.clip(knob.value * 2 ** rng.gauss(0, 0.8))
    if knob.is_int:
        return knob.clip(knob.value + rng.choice((-2, -1, 1, 2)))
    return knob.clip(knob.value + rng.gauss(0, 0.2 * (knob.high - knob.low)))


def ratchet(context: Context, knobs: Mapping[str, Knob], rng: random.Random) -> dict[str, Value]:
    """One knob at a time, capitals first: no model, surprisingly strong."""
    names = [name for name, knob in knobs.items() if knob.upper or rng.random() < 0.3]
    name = rng.choice(names or list(knobs))
    return {name: nudge(knobs[name], rng)}


def uniform(context: Context, knobs: Mapping[str, Knob], rng: random.Random) -> dict[str, Value]:
    """Every constant at random: the control that any other proposer must beat."""
    return {name: draw(knob, rng) for name, knob in knobs.items() if knob.upper}
