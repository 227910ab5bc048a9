"""The two APIs that the tests of LLM proposers run against, each with its loopback server."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pytest_autoresearch.proposers.llm.anthropic import AnthropicProposer
from pytest_autoresearch.proposers.llm.openai import ChatCompletionsProposer
from pytest_autoresearch.proposers.llm.provider import LLMProposer

from .anthropic import QUICK
from .wire.chat import Chat
from .wire.server import Messages, Wire


@dataclass(frozen=True)
class Provider:
    """One API.

    Attributes:
        name: Prefix of the SDK's environment variables, in lower case.
        speaks: Handler of the loopback server.
        path: Appended to the server's address.
        proposer: Class under test.
        model: Id of a model with a list price.
        finish: Key of a step that says why the answer ended.
        turns: Messages of a first request.
    """

    name: str
    speaks: type[Messages]
    path: str
    proposer: type[LLMProposer]
    model: str
    finish: str
    turns: int
    wires: list[Wire] = field(default_factory=list)

    def serve(
        self, monkeypatch: Any, script: list[dict], server: dict | None, fields: dict
    ) -> tuple[Wire, LLMProposer]:
        wire = Wire(script, server, self.speaks)
        self.wires.append(wire)
        monkeypatch.setenv(f"{self.name.upper()}_BASE_URL", wire.url + self.path)
        monkeypatch.setenv(f"{self.name.upper()}_API_KEY", "not a key")
        return wire, self.proposer(**{"model": self.model, "retry_policy": QUICK} | fields)


ANTHROPIC = Provider(
    "anthropic", Messages, "", AnthropicProposer, "claude-sonnet-5-5", "stop_reason", 1
)

OPENAI = Provider("openai", Chat, "/v1", ChatCompletionsProposer, "gpt-5.5", "finish_reason", 2)
