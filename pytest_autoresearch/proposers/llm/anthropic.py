"""Claude models through Anthropic's Messages API, streaming.

Only a message that ended its turn is an answer. Measured to look like success without being it: a
stream that ends without ``message_stop`` (stop reason None), an HTML page with status 200 (a
``str``), a body of another schema (a message of Nones), endless pings.
"""

from __future__ import annotations

import asyncio
import math
import os
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from ...core.proposal import Context, ProposerError, Usage
from ...core.text import one_line
from .calls import Rejected, RetryPolicy, Transient, classify
from .prompt import LIMIT_TOKENS, Prompt, compose, estimate_tokens
from .provider import MAX_TOKENS, START_S, Answer, LLMProposer, PartialAnswer
from .repair import Turn

DEFAULT_MODEL = "claude-opus-5-5"

_LONG_CACHE = {"type": "ephemeral", "ttl": "1h"}
"""A training run outlives the default five minutes every time, and a write that is never read
costs more than no cache."""


@dataclass
class AnthropicProposer(LLMProposer):
    """Proposes a Claude model's answers; its client may be one for Bedrock, Vertex or a proxy."""

    model: str = DEFAULT_MODEL

    name = "anthropic"
    vendor = "anthropic"
    api = "Anthropic's API"

    def _default_client(self) -> Any:
        import anthropic

        return anthropic.AsyncAnthropic(max_retries=0, timeout=self.retry_policy.attempt_s)

    def _compose(self, context: Context) -> Prompt:
        """Compose the prompt; one whose upper estimate is too long is counted by the provider."""
        limit = self.limit_tokens or LIMIT_TOKENS
        prompt = compose(context, sys.maxsize, whole=self.whole)
        estimate = sum(map(estimate_tokens, (*prompt.system, *prompt.user)))
        if estimate <= limit:
            return prompt
        share = (self._count(prompt) or estimate) / estimate
        count = lambda text: math.ceil(share * estimate_tokens(text))  # noqa: E731
        return compose(context, limit, count, whole=self.whole)

    def _count(self, prompt: Prompt) -> int | None:
        """Return the tokens of a prompt as the provider counts them, free of charge, or None."""
        request = self._request(prompt, ())
        counted = {name: request[name] for name in ("model", "system", "messages")}
        with suppress(ProposerError):
            count = self._retry(
                lambda client: client.messages.count_tokens(**counted),
                replace(self.retry_policy, deadline_s=START_S),
            )
            tokens = getattr(count, "input_tokens", None)
            return tokens if isinstance(tokens, int) and tokens > 0 else None
        return None

    def _request(self, prompt: Prompt, turns: Sequence[Turn]) -> dict[str, Any]:
        system: list[dict[str, Any]] = [{"type": "text", "text": part} for part in prompt.system]
        system[-1]["cache_control"] = _LONG_CACHE
        first: list[dict[str, Any]] = [{"type": "text", "text": part} for part in prompt.user]
        first[0]["cache_control"] = _LONG_CACHE
        messages: list[dict[str, Any]] = [{"role": "user", "content": first}]
        for answer, response in turns:
            # the API rejects an empty turn
            messages.append({"role": "assistant", "content": answer or "(nothing)"})
            messages.append({"role": "user", "content": response})
        request: dict[str, Any] = {
            "model": self.model,
            "max_tokens": self.max_tokens,
            "system": system,
            "messages": messages,
        }
        if self.effort:
            request["output_config"] = {"effort": self.effort}
        return request

    def _prompt_usage(self, tokens: int) -> Usage:
        return Usage(self.model, cache_write_tokens=tokens)

    def _usage(self, reported: Any) -> Usage:
        return Usage(
            model=self.model,
            input_tokens=reported.input_tokens or 0,
            cache_read_tokens=reported.cache_read_input_tokens or 0,
            cache_write_tokens=reported.cache_creation_input_tokens or 0,
            output_tokens=reported.output_tokens or 0,
        )

    async def _stream(self, client: Any, request: dict[str, Any], partial: PartialAnswer) -> Answer:
        silence_s, loop = self.retry_policy.silence_s, asyncio.get_running_loop()
        limit = asyncio.timeout(silence_s)
        async with limit, client.messages.stream(**request) as stream:
            async for event in stream:
                limit.reschedule(loop.time() + silence_s)
                partial.usage = self._usage(stream.current_message_snapshot.usage)
                if event.type == "content_block_delta":
                    delta = event.delta
                    partial.text += getattr(delta, "text", "") or getattr(delta, "thinking", "")
            message = await stream.get_final_message()
        if getattr(message, "stop_reason", None) is None or message.usage is None:
            raise Transient("the stream ended before the message did")
        refusal = ""
        if message.stop_reason == "refusal":
            details = getattr(message, "stop_details", None)
            refusal = getattr(details, "category", None) or "no category given"
        text = "".join(block.text for block in message.content if block.type == "text")
        return Answer(text, self._usage(message.usage), message.stop_reason, refusal)

    def _check_model(self, policy: RetryPolicy) -> None:
        most = None
        if hasattr(self._new_client(), "models"):  # clients of other clouds have none
            model = self._retry(lambda client: client.models.retrieve(self.model), policy)
            if not isinstance(getattr(model, "id", None), str):
                raise Rejected(
                    f"the server at {os.environ.get('ANTHROPIC_BASE_URL', 'the default address')} "
                    "does not speak Anthropic's API"
                )
            lifecycle = getattr(model, "lifecycle", None)
            if lifecycle == "retired":
                raise Rejected(f"{self.model} is retired; choose another --autoresearch-model")
            if lifecycle == "deprecated":
                self._warning = f"{self.model} is deprecated: it will be retired"
            most = getattr(model, "max_tokens", None)
        self.max_tokens = min(MAX_TOKENS, most) if isinstance(most, int) and most else MAX_TOKENS

    def _classify(self, error: Exception) -> Exception:
        import anthropic

        message = one_line(error)
        final = (anthropic.EnforcedSpendLimitReachedError, anthropic.ContractSpendLimitReachedError)
        if isinstance(error, final):
            return Rejected(f"the account's spend limit is reached: {message}")
        if isinstance(error, TypeError) and "authentication" in message:
            return Rejected(f"no usable credentials: {message}")
        return classify(error)
