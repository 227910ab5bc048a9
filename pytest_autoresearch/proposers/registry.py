"""Proposers by name; the SDKs they need are imported when they are first called."""

from __future__ import annotations

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass, fields
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

from ..core.experiment import Experiment
from ..core.proposal import Proposer
from ..ledger.spend import CostBudget
from ..sandbox.policy import Mode
from .agents.command import create_agent
from .chain import Chain
from .draft import WithControl
from .llm.anthropic import DEFAULT_MODEL, AnthropicProposer
from .llm.openai import ChatCompletionsProposer
from .replay import OneFile, Replay
from .search.literals import LiteralSearch, ratchet, uniform

ENTRY_POINTS = "pytest_autoresearch.proposers"

CREDENTIALS = (
    *("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"),
    *("ANTHROPIC_PROFILE", "ANTHROPIC_FEDERATION_RULE_ID"),
)
"""Variables that Anthropic's SDK reads credentials from; importing it to ask takes seconds."""


class UnknownProposer(ValueError):
    """No proposer has that name, or it cannot be loaded."""


@dataclass(frozen=True)
class Settings:
    """Options for language models and agents.

    Attributes:
        model: Model id, or None for the backend's default.
        effort: Reasoning effort, or None.
        client: ``module:factory`` of the provider's client, or None.
        control: Every how many attempts the search proposes instead; 0: never.
        cost_budget: The campaign's money, or None.
        sandbox: Mode of confinement of an agent.
        hide: Files with validation and holdout text, which an agent may not read.
        rates: Dollars per million tokens of input and output that replace the list price.
        context: Tokens of the model's window, or None.
        answer: Form of the answers, ``blocks`` or ``whole``, or None.
    """

    model: str | None = None
    effort: str | None = None
    client: str | None = None
    control: int = 0
    cost_budget: CostBudget | None = None
    sandbox: Mode = "auto"
    hide: tuple[str, ...] = ()
    rates: tuple[float, float] | None = None
    context: int | None = None
    answer: str | None = None


def default(experiment: Experiment) -> str:
    """Return the proposer where none is chosen.

    A language model if its credentials are set, else what the experiment names, else `gp`.
    """
    if any(os.environ.get(name) for name in CREDENTIALS):
        return "anthropic"
    return experiment.proposer or "gp"


def with_settings(proposer: Proposer, settings: Settings) -> Proposer:
    """Apply settings to a language model or agent, and add a control arm if one is wanted."""
    if not proposer.slow:
        return proposer
    for member in proposer.members if isinstance(proposer, Chain) else (proposer,):
        for name in (one.name for one in fields(settings)):
            if (value := getattr(settings, name)) is not None and hasattr(member, name):
                setattr(member, name, value)
    if settings.control < 2:
        return proposer
    return WithControl(proposer, _gp("", Path()), settings.control)


def _gp(argument: str, root: Path) -> Proposer:
    from .search.gp import GaussianProcess  # imports numpy and scipy

    return GaussianProcess()


BUILT_IN: dict[str, Callable[[str, Path], Proposer]] = {
    "anthropic": lambda argument, root: AnthropicProposer(argument or DEFAULT_MODEL),
    "openai": lambda argument, root: ChatCompletionsProposer(argument),
    "command": create_agent,
    "gp": _gp,
    "ratchet": lambda argument, root: LiteralSearch("ratchet", ratchet),
    "random": lambda argument, root: LiteralSearch("random", uniform),
    "replay": lambda argument, root: Replay(root / argument),
    "file": lambda argument, root: OneFile(root / argument),
}
"""Name before the colon to factory, which gets the text after it and the project root."""


def split(spec: str) -> list[str]:
    """Return the proposers that `spec` names, one after the other; arguments may hold commas."""
    return re.split(rf",(?=(?:{'|'.join(BUILT_IN)})(?:[:,]|$))", spec)


def check(spec: str, root: Path | None = None) -> None:
    """Check that `spec` names a proposer, or several that are separated by commas.

    Raises:
        UnknownProposer: It does not.
        ValueError: Its argument is bad.
    """
    if len(members := split(spec)) > 1:
        for member in members:
            check(member, root)
        return
    name, _, argument = spec.partition(":")
    if name in BUILT_IN:
        if argument or name == "command":
            BUILT_IN[name](argument, root or Path.cwd())
    elif not argument and name not in (installed := _installed()):
        known = ", ".join([*BUILT_IN, *installed])
        raise UnknownProposer(f"{spec!r} is unknown; choose {known} or module:factory")


def create(spec: str, *, experiment: Experiment, root: Path) -> Proposer:
    """Return the proposer that `spec` names.

    Args:
        spec: A name of `BUILT_IN` with its argument (``replay:DIR``), an entry point of the group
            ``pytest_autoresearch.proposers``, or ``module:factory``; factories of the last two are
            called with the experiment. Several, separated by commas: each when the one before it is
            exhausted.
        experiment: The declaration.
        root: Folder that relative paths start from.

    Raises:
        ValueError: No such proposer, or its argument is bad.
    """
    if len(members := split(spec)) > 1:
        return Chain([create(member, experiment=experiment, root=root) for member in members])
    name, _, argument = spec.partition(":")
    if name in BUILT_IN:
        return BUILT_IN[name](argument, root)
    try:
        if name in _installed():
            factory = next(e for e in entry_points(group=ENTRY_POINTS) if e.name == name).load()
        else:
            factory = getattr(importlib.import_module(name), argument)
    except (ImportError, AttributeError, ValueError) as error:
        raise UnknownProposer(f"{spec!r} cannot be loaded: {error}") from None
    return _with_defaults(factory(experiment))


def _with_defaults(proposer: Any) -> Proposer:
    """Add the members of `Proposer` that a user's object may leave out."""
    defaults = {name: getattr(Proposer, name) for name in ("slow", "fixed_order", "bypass_queue")}
    functions = {"check": lambda: "", "ahead": lambda context: bool(proposer.slow)}
    for name, value in {**defaults, **functions}.items():
        if not hasattr(proposer, name):
            try:
                setattr(proposer, name, value)
            except AttributeError:  # frozen, or with __slots__
                setattr(type(proposer), name, staticmethod(value) if callable(value) else value)
    made: Proposer = proposer
    return made


def _installed() -> list[str]:
    return [entry.name for entry in entry_points(group=ENTRY_POINTS)]
