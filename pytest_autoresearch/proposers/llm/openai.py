"""Models behind any server of the chat completions API: OpenAI, vLLM, llama.cpp, ollama, a gateway.

`OPENAI_BASE_URL` is its address. The SDK reports success for a page of HTML and for a stream that
ended early, whose finish reason is None; only ``stop`` is an answer here.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ...core.proposal import Usage
from ...core.text import one_line
from .calls import Rejected, RetryPolicy, Transient, classify
from .prompt import LIMIT_TOKENS, Prompt
from .provider import Answer, LLMProposer, PartialAnswer
from .repair import Turn

_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


@dataclass
class ChatCompletionsProposer(LLMProposer):
    """Proposes the answers of a model behind the chat completions API."""

    name = "openai"
    vendor = "openai"
    api = "the chat completions API"
    complete = "stop"

    def _default_client(self) -> Any:
        try:
            import openai
        except ImportError:
            raise Rejected(
                "the package openai is missing; pip install 'pytest-autoresearch[openai]'"
            ) from None
        # a local server needs no key, but the SDK does
        local = "none" if os.environ.get("OPENAI_BASE_URL") else None
        key = os.environ.get("OPENAI_API_KEY") or local
        return openai.AsyncOpenAI(api_key=key, max_retries=0, timeout=self.retry_policy.attempt_s)

    def _request(self, prompt: Prompt, turns: Sequence[Turn]) -> dict[str, Any]:
        # caches of this API go by the longest equal prefix: the order of the parts is all they need
        messages = [
            {"role": "system", "content": "\n\n".join(prompt.system)},
            {"role": "user", "content": "\n\n".join(prompt.user)},
        ]
        for answer, response in turns:
            messages.append({"role": "assistant", "content": answer or "(nothing)"})
            messages.append({"role": "user", "content": response})
        request: dict[str, Any] = {
            "model": self.model,
            "messages": messages,
            "max_completion_tokens": self.max_tokens,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if self.effort:
            request["reasoning_effort"] = self.effort
        return request

    def _prompt_usage(self, tokens: int) -> Usage:
        return Usage(self.model, input_tokens=tokens)

    def _usage(self, reported: Any) -> Usage:
        details = getattr(reported, "prompt_tokens_details", None)
        read = getattr(details, "cached_tokens", None) or 0
        written = getattr(details, "cache_write_tokens", None) or 0
        whole = getattr(reported, "prompt_tokens", None) or 0
        return Usage(
            model=self.model,
            input_tokens=max(0, whole - read - written),
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_tokens=getattr(reported, "completion_tokens", None) or 0,
        )

    async def _stream(self, client: Any, request: dict[str, Any], partial: PartialAnswer) -> Answer:
        silence_s, loop = self.retry_policy.silence_s, asyncio.get_running_loop()
        refusal, finish, usage = "", None, None
        async with asyncio.timeout(silence_s) as limit:
            async for chunk in await client.chat.completions.create(**request):
                limit.reschedule(loop.time() + silence_s)
                usage = getattr(chunk, "usage", None) or usage
                for choice in getattr(chunk, "choices", None) or ():
                    partial.text += choice.delta.content or ""
                    refusal += getattr(choice.delta, "refusal", None) or ""
                    finish = choice.finish_reason or finish
        if finish is None:
            raise Transient("the stream ended before the answer did")
        if finish == "content_filter":
            refusal = refusal or "stopped by a content filter"
        return Answer(partial.text, self._usage(usage), finish, refusal[:200])

    def _check_model(self, policy: RetryPolicy) -> None:
        models = self._retry(self._models, policy)
        if models and self.model not in models:
            some = ", ".join(sorted(models)[:8])
            raise Rejected(
                f"the server has no model {self.model!r}; it has {some} (--autoresearch-model)"
            )
        window = getattr(models.get(self.model), "max_model_len", None)  # reported by vLLM
        if isinstance(window, int) and window > 0:
            self.max_tokens = min(self.max_tokens, window // 2)
            self._limit_tokens = min(LIMIT_TOKENS, window * 3 // 8)  # the rest is for repairs

    async def _models(self, client: Any) -> dict[str, Any]:
        """Return the server's models by id; empty if it cannot list them."""
        try:
            models = getattr(await client.models.list(), "data", None)
        except Exception as error:
            if getattr(error, "status_code", None) in (404, 405, 501):
                return {}
            raise
        if not isinstance(models, list):
            raise Rejected(
                f"the server at {os.environ.get('OPENAI_BASE_URL', 'the default address')} does "
                "not speak the chat completions API; OPENAI_BASE_URL usually ends with /v1"
            )
        return {str(model.id): model for model in models}

    def _classify(self, error: Exception) -> Exception:
        message = one_line(error)
        if getattr(error, "code", None) in _QUOTA:
            return Rejected(f"the account's quota is used up: {message}")
        return classify(getattr(error, "status_code", None), message, error)
