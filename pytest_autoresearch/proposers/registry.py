"""Proposers by name; nothing heavy is imported before one is created."""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import entry_points
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.experiment import Experiment
from ..core.proposal import Proposer

if TYPE_CHECKING:
    from ..ledger.spend import CostBudget
    from ..sandbox.policy import Mode

ENTRY_POINTS = "pytest_autoresearch.proposers"

CREDENTIALS = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    *("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID"),
)
"""Variables that Anthropic's SDK finds credentials by; importing it to ask takes seconds."""


@dataclass(frozen=True)
class Settings:
    """What a person asked of a language model.

    Attributes:
        model: Its id, or None for the backend's own default.
        effort: How hard it thinks, or None.
        client: ``module:factory`` of its client, or None.
        control: Every how many attempts `gp` gets one; 0: none.
        purse: The campaign's money, or None.
        sandbox: Mode of confinement of an agent.
        rates: Dollars per million tokens of input and output, where they are not the list's.
    """

    model: str | None = None
    effort: str | None = None
    client: str | None = None
    control: int = 0
    cost_budget: CostBudget | None = None
    sandbox: Mode = "auto"
    rates: tuple[float, float] | None = None


def default() -> str:
    """Who proposes when nobody says: a language model where its key is set, else the search."""
    return "anthropic" if any(os.environ.get(name) for name in CREDENTIALS) else "gp"


def with_settings(proposer: Proposer, settings: Settings) -> Proposer:
    """Give a language model what was asked of it, and a control arm beside it."""
    if not getattr(proposer, "thinks", False):
        return proposer
    wanted = {
        name: value
        for name in ("model", "effort", "client", "purse", "sandbox", "rates")
        if (value := getattr(settings, name)) is not None and hasattr(proposer, name)
    }
    for name, value in wanted.items():
        setattr(proposer, name, value)
    if settings.control < 2:
        return proposer
    from .draft import WithControl

    return WithControl(proposer, _gp("", Path()), settings.control)


class UnknownProposer(ValueError):
    """No proposer of that name; the message lists those there are."""


def _gp(argument: str, root: Path) -> Proposer:
    from .search.gp import GaussianProcess

    return GaussianProcess()


def _ratchet(argument: str, root: Path) -> Proposer:
    from .search.keyless import Keyless, ratchet

    return Keyless("ratchet", ratchet)


def _random(argument: str, root: Path) -> Proposer:
    from .search.keyless import Keyless, uniform

    return Keyless("random", uniform)


def _replay(argument: str, root: Path) -> Proposer:
    from .replay import Replay

    return Replay(root / argument)


def _anthropic(argument: str, root: Path) -> Proposer:
    from .llm.anthropic import DEFAULT_MODEL, Claude

    return Claude(model=argument or DEFAULT_MODEL)


def _openai(argument: str, root: Path) -> Proposer:
    from .llm.openai import Chat

    return Chat(model=argument)


def _command(argument: str, root: Path) -> Proposer:
    from .agents.command import make

    return make(argument, root)


def _file(argument: str, root: Path) -> Proposer:
    from .replay import OwnIdea

    return OwnIdea(root / argument)


BUILT_IN: dict[str, Callable[[str, Path], Proposer]] = {
    "anthropic": _anthropic,
    "openai": _openai,
    "command": _command,
    "gp": _gp,
    "ratchet": _ratchet,
    "random": _random,
    "replay": _replay,
    "file": _file,
}
"""Name before the colon to factory; the factory gets what stands after it, and the root."""


def check(spec: str, root: Path | None = None) -> None:
    """See that `spec` names a proposer.

    Raises:
        UnknownProposer: It does not.
    """
    name, _, argument = spec.partition(":")
    if name in BUILT_IN:
        if argument or name == "command":
            BUILT_IN[name](argument, root or Path.cwd())
        return
    if name not in _installed() and not argument:
        known = ", ".join([*BUILT_IN, *_installed()])
        raise UnknownProposer(f"{spec!r} is unknown; choose {known} or module:factory")


def create(spec: str, *, experiment: Experiment, root: Path) -> Proposer:
    """Return the proposer that `spec` names.

    Args:
        spec: ``gp``, ``ratchet``, ``random``, ``replay:DIR``, ``command:AGENT``, an entry point
            of the group ``pytest_autoresearch.proposers``, or ``module:factory``; factories of the
            last two are called with the experiment.
        experiment: The declaration.
        root: Folder that relative paths start from.

    Raises:
        ValueError: No such proposer, or its argument is bad.
    """
    name, _, argument = spec.partition(":")
    if name in BUILT_IN:
        return BUILT_IN[name](argument, root)
    installed = _installed()
    try:
        if name in installed:
            factory = next(e for e in entry_points(group=ENTRY_POINTS) if e.name == name).load()
        else:
            factory = getattr(importlib.import_module(name), argument)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownProposer(f"{spec!r} cannot be loaded: {error}") from None
    made: Proposer = factory(experiment)
    return made


def _installed() -> list[str]:
    return [entry.name for entry in entry_points(group=ENTRY_POINTS)]
