"""Claude, by Anthropic's Messages API, streaming.

Only a message that ended its turn is an answer. What was measured to look like success and is none:
a stream that ends without ``message_stop`` (stop reason None), an HTML page with status 200 (a
``str``), a body of another schema (a message of Nones), pings that go on for ever.
"""

from __future__ import annotations

import asyncio
import importlib
import json
import os
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from ..spend import NoPrice, Purse, price
from . import (
    Context,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    ProposerError,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from .calls import Patience, Transient, persist
from .prompt import Prompt, compose, estimate_tokens
from .repair import Reply, Turn, converse

DEFAULT_MODEL = "claude-opus-5-5"
MAX_TOKENS = 32_000
REFUSALS = 3
"""Refusals in one session after which nothing more is asked."""

_LONG_CACHE = {"type": "ephemeral", "ttl": "1h"}
"""A training run outlives the default five minutes every time, and a write that is never read
costs more than no cache."""


@dataclass
class Claude:
    """Proposes what a Claude model answers.

    Attributes:
        model: Its id.
        effort: How hard it thinks, or None for its own default.
        client: ``module:factory`` of an async client (Bedrock, Vertex, Foundry, a proxy), or None.
        purse: The campaign's money, or None.
        patience: Limits of one answer.
    """

    model: str = DEFAULT_MODEL
    effort: str | None = None
    client: str | None = None
    purse: Purse | None = None
    patience: Patience = field(default_factory=Patience)
    name: str = "anthropic"
    thinks: bool = True
    _refusals: int = 0
    _max_tokens: int = 0

    def propose(self, context: Context) -> Proposal:
        """Return the model's proposal; see `Proposer.propose`."""
        if self._refusals >= REFUSALS:
            raise ProposerExhausted(
                f"{self.model} declined {self._refusals} times in this session; choose another "
                "--autoresearch-model or proposer (the provider's terms may exclude such work)"
            )
        if not self._max_tokens:
            self._max_tokens = min(MAX_TOKENS, self._check_model())
        prompt = compose(context)
        return converse(lambda turns: self._ask(prompt, turns), context, self.name)

    def close(self) -> None:
        """Nothing is held between calls."""

    # ------------------------------------------------------------------ one turn

    def _ask(self, prompt: Prompt, turns: Sequence[Turn]) -> Reply:
        began, reservation = time.monotonic(), None
        request = self._request(prompt, turns)
        if self.purse is not None:
            reservation = self.purse.reserve(self.model, self._most(request))
        message = persist(lambda: self._stream(request), self.patience, "Anthropic's API")
        usage = self._usage(message, time.monotonic() - began)
        if self.purse is not None and reservation is not None and usage.cost_usd is not None:
            self.purse.settle(reservation, usage.cost_usd)
        if message.stop_reason == "refusal":
            self._refusals += 1
            details = getattr(message, "stop_details", None)
            category = getattr(details, "category", None) or "no category given"
            raise _having_spent(usage, ProposalRefused(f"{self.model}: {category}"))
        if message.stop_reason != "end_turn":
            said = f"the answer ended with {message.stop_reason} after {usage.output_tokens} tokens"
            raise _having_spent(usage, ProposalInvalid(said))
        text = "".join(block.text for block in message.content if block.type == "text")
        return Reply(text, usage)

    def _request(self, prompt: Prompt, turns: Sequence[Turn]) -> dict[str, Any]:
        system: list[dict[str, Any]] = [{"type": "text", "text": part} for part in prompt.system]
        system[-1]["cache_control"] = _LONG_CACHE
        first: list[dict[str, Any]] = [{"type": "text", "text": part} for part in prompt.user]
        first[0]["cache_control"] = _LONG_CACHE
        messages: list[dict[str, Any]] = [{"role": "user", "content": first}]
        for said, answered in turns:
            # an empty turn is not accepted back
            messages.append({"role": "assistant", "content": said or "(nothing)"})
            messages.append({"role": "user", "content": answered})
        request: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self._max_tokens,
            "system": system,
            "messages": messages,
        }
        if self.effort:
            request["output_config"] = {"effort": self.effort}
        return request

    def _most(self, request: dict[str, Any]) -> float:
        """What a call may cost at most, at list price."""
        tokens = estimate_tokens(json.dumps(request))
        usage = Usage(self.model, cache_write_tokens=tokens, output_tokens=request["max_tokens"])
        try:
            return price("anthropic", usage)
        except NoPrice as error:
            raise ProposerUnavailable(f"{error}; leave --autoresearch-max-cost out") from None

    def _usage(self, message: Any, seconds: float) -> Usage:
        told = message.usage
        usage = Usage(
            model=self.model,
            input_tokens=told.input_tokens or 0,
            cache_read_tokens=told.cache_read_input_tokens or 0,
            cache_write_tokens=told.cache_creation_input_tokens or 0,
            output_tokens=told.output_tokens or 0,
            requests=1,
            seconds=seconds,
        )
        try:
            return Usage(**{**vars(usage), "cost_usd": price("anthropic", usage)})
        except NoPrice:
            return usage

    # ------------------------------------------------------------------ the wire

    def _make_client(self) -> Any:
        import anthropic

        if self.client:
            module, _, factory = self.client.partition(":")
            return getattr(importlib.import_module(module), factory)()
        return anthropic.AsyncAnthropic(max_retries=0, timeout=self.patience.attempt_s)

    async def _stream(self, request: dict[str, Any]) -> Any:
        async with _faults(), self._make_client() as client:
            limit = asyncio.timeout(self.patience.silence_s)
            async with limit, client.messages.stream(**request) as stream:
                async for _ in stream:
                    limit.reschedule(asyncio.get_running_loop().time() + self.patience.silence_s)
                message = await stream.get_final_message()
        if getattr(message, "stop_reason", None) is None or message.usage is None:
            raise Transient("the stream ended before the message did")
        return message

    def _check_model(self) -> int:
        """Ask whether the model exists; returns the most tokens that it may answer with."""

        async def ask() -> Any:
            async with _faults(), self._make_client() as client:
                return await client.models.retrieve(self.model)

        if not hasattr(self._probe(), "models"):
            return MAX_TOKENS
        found = persist(ask, self.patience, "Anthropic's API")
        if not isinstance(getattr(found, "id", None), str):
            raise ProposerUnavailable(
                f"the server at {os.environ.get('ANTHROPIC_BASE_URL', 'the default address')} "
                "does not speak Anthropic's API"
            )
        if getattr(found, "lifecycle", None) == "retired":
            raise ProposerUnavailable(
                f"{self.model} is retired; choose another --autoresearch-model"
            )
        most = getattr(found, "max_tokens", None)
        return most if isinstance(most, int) and most > 0 else MAX_TOKENS

    def _probe(self) -> Any:
        try:
            return self._make_client()
        except Exception as error:
            raise ProposerUnavailable(f"the client cannot be made: {error}") from None


def _having_spent(usage: Usage, error: ProposerError) -> ProposerError:
    error.usage = usage
    return error


@asynccontextmanager
async def _faults() -> AsyncIterator[None]:
    """Turn what an SDK raises into what can be done about it."""
    try:
        yield
    except (Transient, ProposerError, TimeoutError):
        raise
    except Exception as error:
        raise _fault(error) from None


def _fault(error: Exception) -> Exception:
    import anthropic

    said = " ".join(str(getattr(error, "message", "") or error).split())[:200]
    status = getattr(error, "status_code", None)
    if isinstance(error, anthropic.EnforcedSpendLimitReachedError):
        return ProposerUnavailable(f"the account's spend limit is reached: {said}")
    if status in (401, 403):
        return ProposerUnavailable(
            f"the credentials were refused ({status}); check the key: {said}"
        )
    if status == 402:
        return ProposerUnavailable(f"the account cannot pay (402): {said}")
    if status == 404:
        return ProposerUnavailable(f"not found (404); check --autoresearch-model: {said}")
    if status in (400, 413, 422):
        return ProposerUnavailable(f"the request was refused ({status}): {said}")
    if isinstance(error, anthropic.APIStatusError):
        return Transient(f"{type(error).__name__}: {said}", _retry_after(error))
    if isinstance(error, TypeError):
        return ProposerUnavailable(f"no usable credentials: {said}")
    # dropped connections, half bodies, pages of HTML, bad JSON: whatever it is called
    return Transient(f"{type(error).__name__}: {said}")


def _retry_after(error: Any) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):  # the header may also be a date
            return float(headers[name]) * unit
    return None
