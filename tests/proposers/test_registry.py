"""The default proposer, optional dependencies, and proposers that users write."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import Proposer, ProposerUnavailable
from pytest_autoresearch.proposers.draft import WithControl
from pytest_autoresearch.proposers.registry import (
    CREDENTIALS,
    Settings,
    UnknownProposer,
    check,
    create,
    default,
    with_settings,
)


@pytest.fixture
def without(monkeypatch: pytest.MonkeyPatch):
    """Hide installed packages."""
    find = importlib.util.find_spec

    def hide(*names: str) -> None:
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, *more: None if name in names else find(name)
        )
        for name in names:
            monkeypatch.setitem(sys.modules, name, None)

    return hide


@pytest.fixture(autouse=True)
def no_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize("name", CREDENTIALS)
def test_default_is_a_language_model_if_credentials_are_set(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    assert default(Experiment()) == "anthropic"


def test_default_without_credentials_is_gp() -> None:
    assert default(Experiment()) == "gp"


def test_openai_without_its_package_names_the_extra(without) -> None:
    without("openai")
    chat = create("openai:gpt-5.5", experiment=Experiment(), root=Path())
    with pytest.raises(ProposerUnavailable, match=r"pytest-autoresearch\[openai\]"):
        chat.check()


def test_control_arm_is_gp() -> None:
    chat = create("openai:gpt-5.5", experiment=Experiment(), root=Path())
    arms = with_settings(chat, Settings(control=2))
    assert isinstance(arms, WithControl)
    assert arms._control.name == "gp"


class Minimal:
    name = "minimal"

    def __init__(self, experiment: Experiment) -> None:
        pass

    def propose(self, context: object) -> None: ...

    def close(self) -> None: ...


class Slotted(Minimal):
    __slots__ = ("experiment",)


@dataclass(frozen=True)
class Frozen:
    experiment: Experiment
    name = "frozen"


class Full(Minimal):
    slow, fixed_order, bypass_queue = True, True, True

    def check(self) -> str:
        return "a warning"


@pytest.mark.parametrize("factory", [Minimal, Slotted, Frozen, lambda _: SimpleNamespace(name="x")])
def test_users_proposer_gets_the_defaults(factory, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "users", SimpleNamespace(factory=factory))
    proposer = create("users:factory", experiment=Experiment(), root=Path())
    for name in ("slow", "fixed_order", "bypass_queue"):
        assert getattr(proposer, name) is getattr(Proposer, name) is False
    assert proposer.check() == ""


def test_users_proposer_keeps_its_own_attributes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "users", SimpleNamespace(factory=Full))
    proposer = create("users:factory", experiment=Experiment(), root=Path())
    assert (proposer.slow, proposer.fixed_order, proposer.bypass_queue) == (True, True, True)
    assert proposer.check() == "a warning"


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ("genius", "'genius' is unknown; choose"),
        ("replay:/nowhere", "is not a folder"),
        ("file:/nowhere", "is not a file"),
    ],
)
def test_unknown_proposer_is_named(spec: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        check(spec)


def test_missing_module_is_named() -> None:
    with pytest.raises(UnknownProposer, match="cannot be loaded"):
        create("no_such_module:factory", experiment=Experiment(), root=Path())
