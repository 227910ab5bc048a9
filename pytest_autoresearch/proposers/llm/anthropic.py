"""Claude, by Anthropic's Messages API, streaming.

Only a message that ended its turn is an answer. What was measured to look like success and is none:
a stream that ends without ``message_stop`` (stop reason None), an HTML page with status 200 (a
``str``), a body of another schema (a message of Nones), pings that go on for ever.
"""

from __future__ import annotations

import asyncio
import json
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from ...core.proposal import Context, Proposal, ProposalInvalid, ProposerError, Usage
from ...core.text import one_line
from .calls import START_S, Asker, Heard, Rejected, RetryPolicy, Transient, faults, persist, verdict
from .prompt import LIMIT_TOKENS, Prompt, compose, estimate_tokens
from .repair import Reply, Turn, converse

DEFAULT_MODEL = "claude-opus-5-5"

MAX_TOKENS = 32_000

_LONG_CACHE = {"type": "ephemeral", "ttl": "1h"}
"""A training run outlives the default five minutes every time, and a write that is never read
costs more than no cache."""


@dataclass
class Claude(Asker):
    """Proposes what a Claude model answers; its client may be one for Bedrock, Vertex, a proxy."""

    model: str = DEFAULT_MODEL
    name: str = "anthropic"
    _max_tokens: int = 0

    vendor: ClassVar[str] = "anthropic"
    api: ClassVar[str] = "Anthropic's API"

    def propose(self, context: Context) -> Proposal:
        """Return the model's proposal; see `Proposer.propose`."""
        self._willing()
        if not self._max_tokens:
            self._check_model(self.patience)
        prompt = self._compose(context)
        return converse(lambda turns: self._ask(prompt, turns), context, self.name)

    def _compose(self, context: Context) -> Prompt:
        """Compose the prompt; where our upper estimate is too long, the provider counts."""
        whole = compose(context, limit_tokens=sys.maxsize)
        estimate = sum(map(estimate_tokens, (*whole.system, *whole.user)))
        if estimate <= LIMIT_TOKENS:
            return whole
        share = self._counted(whole) / estimate
        return compose(context, count=lambda text: math.ceil(share * estimate_tokens(text)))

    def _counted(self, prompt: Prompt) -> float:
        """Return the tokens of a prompt as the provider counts them; our estimate if it does not.

        Counting is free of charge, and so is not counting.
        """
        request = self._request(prompt, ())

        async def ask() -> Any:
            async with faults(_fault), self._make_client() as client:
                return await client.messages.count_tokens(
                    **{name: request[name] for name in ("model", "system", "messages")}
                )

        with suppress(ProposerError):
            found = persist(ask, replace(self.patience, deadline_s=START_S), self.api)
            if isinstance(tokens := getattr(found, "input_tokens", None), int) and tokens > 0:
                return tokens
        return sum(map(estimate_tokens, (*prompt.system, *prompt.user)))

    # ------------------------------------------------------------------ one turn

    def _ask(self, prompt: Prompt, turns: Sequence[Turn]) -> Reply:
        request = self._request(prompt, turns)
        tokens = estimate_tokens(json.dumps(request))
        most = Usage(self.model, cache_write_tokens=tokens, output_tokens=request["max_tokens"])
        message, usage = self._buy(
            lambda heard: self._stream(request, heard), most, lambda m: self._usage(m.usage)
        )
        if message.stop_reason == "refusal":
            details = getattr(message, "stop_details", None)
            category = getattr(details, "category", None) or "no category given"
            raise self._declined(usage, category)
        if message.stop_reason != "end_turn":
            said = f"the answer ended with {message.stop_reason} after {usage.output_tokens} tokens"
            unfinished = ProposalInvalid(said)
            unfinished.usage = usage
            raise unfinished
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

    def _usage(self, told: Any) -> Usage:
        return Usage(
            model=self.model,
            input_tokens=told.input_tokens or 0,
            cache_read_tokens=told.cache_read_input_tokens or 0,
            cache_write_tokens=told.cache_creation_input_tokens or 0,
            output_tokens=told.output_tokens or 0,
        )

    # ------------------------------------------------------------------ the wire

    def _make_client(self) -> Any:
        def standard() -> Any:
            import anthropic

            return anthropic.AsyncAnthropic(max_retries=0, timeout=self.patience.attempt_s)

        return self._open(standard)

    async def _stream(self, request: dict[str, Any], heard: Heard) -> Any:
        async with faults(_fault), self._make_client() as client:
            limit = asyncio.timeout(self.patience.silence_s)
            async with limit, client.messages.stream(**request) as stream:
                async for event in stream:
                    limit.reschedule(asyncio.get_running_loop().time() + self.patience.silence_s)
                    heard.usage = self._usage(stream.current_message_snapshot.usage)
                    if event.type == "content_block_delta":
                        delta = event.delta
                        heard.text += getattr(delta, "text", "") or getattr(delta, "thinking", "")
                message = await stream.get_final_message()
        if getattr(message, "stop_reason", None) is None or message.usage is None:
            raise Transient("the stream ended before the message did")
        return message

    def _check_model(self, patience: RetryPolicy) -> None:
        """Ask whether the model exists, and how much it may answer."""

        async def ask() -> Any:
            async with faults(_fault), self._make_client() as client:
                return await client.models.retrieve(self.model)

        most = None
        if hasattr(self._make_client(), "models"):
            found = persist(ask, patience, self.api)
            if not isinstance(getattr(found, "id", None), str):
                raise Rejected(
                    f"the server at {os.environ.get('ANTHROPIC_BASE_URL', 'the default address')} "
                    "does not speak Anthropic's API"
                )
            if getattr(found, "lifecycle", None) == "retired":
                raise Rejected(f"{self.model} is retired; choose another --autoresearch-model")
            if getattr(found, "lifecycle", None) == "deprecated":
                self._notice = f"{self.model} is deprecated: it will be retired"
            most = getattr(found, "max_tokens", None)
        self._max_tokens = min(MAX_TOKENS, most) if isinstance(most, int) and most else MAX_TOKENS


def _fault(error: Exception) -> Exception:
    import anthropic

    said = one_line(error)
    final = (anthropic.EnforcedSpendLimitReachedError, anthropic.ContractSpendLimitReachedError)
    if isinstance(error, final):
        return Rejected(f"the account's spend limit is reached: {said}")
    if isinstance(error, TypeError) and "authentication" in said:
        return Rejected(f"no usable credentials: {said}")
    return verdict(getattr(error, "status_code", None), said, error)
