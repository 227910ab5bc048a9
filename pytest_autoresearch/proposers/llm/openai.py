"""Models behind any server of the chat completions API: OpenAI, vLLM, llama.cpp, ollama, a gateway.

`OPENAI_BASE_URL` is its address. The SDK reports success for a page of HTML and for a stream that
ended early, whose finish reason is None.
"""

from __future__ import annotations

import asyncio
import os
import re
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from ...core.proposal import ProposerError, Usage
from .calls import Rejected, RetryPolicy, TooLong, Transient, classify, words_of
from .prompt import Prompt
from .provider import Answer, LLMProposer, PartialAnswer
from .repair import Turn

_UNKNOWN = ("max_completion_tokens", "max_tokens", "stream_options")
"""Fields of a request that some servers refuse, and that it can do without."""

_BROKEN = re.compile("error|abort|cancel|timeout|insufficient", re.IGNORECASE)
"""Finish reasons of an answer that the server could not finish."""

_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


@dataclass
class ChatCompletionsProposer(LLMProposer):
    """Proposes the answers of a model behind the chat completions API."""

    _left_out: set[str] = field(default_factory=set)

    name = "openai"
    vendor = "openai"
    api = "the chat completions API"

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
            "stream": True,
        }
        for name in _UNKNOWN[:2]:
            if name not in self._left_out:
                request[name] = self.max_tokens
                break
        if "stream_options" not in self._left_out:
            request["stream_options"] = {"include_usage": True}
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
        text, refusal, finish, usage = "", "", None, None
        async with asyncio.timeout(silence_s) as limit:
            async for chunk in await self._open(client, request):
                limit.reschedule(loop.time() + silence_s)
                usage = getattr(chunk, "usage", None) or usage
                for choice in getattr(chunk, "choices", None) or ():
                    delta = getattr(choice, "delta", None)
                    content = getattr(delta, "content", None)
                    text += _text(content)
                    partial.text += str(content or getattr(delta, "reasoning_content", None) or "")
                    refusal += getattr(delta, "refusal", None) or ""
                    finish = getattr(choice, "finish_reason", None) or finish
        if finish is None or _BROKEN.search(finish):
            raise Transient(f"the stream ended before the answer did ({finish})")
        if finish == "content_filter":
            refusal = refusal or "stopped by a content filter"
        return Answer(text, self._usage(usage), finish, refusal[:200])

    async def _open(self, client: Any, request: dict[str, Any]) -> Any:
        """Send a request; leave out, from now on, a field that the server refuses."""
        while True:
            try:
                return await client.chat.completions.create(**request)
            except Exception as error:
                refused = getattr(error, "status_code", None) in (400, 422)
                said = f"{words_of(error)} {getattr(error, 'param', '')}"
                named = [name for name in _UNKNOWN if name in request and name in said]
                if not refused or not named or isinstance(classify(error), TooLong):
                    raise
                value = request.pop(named[0])
                self._left_out.add(named[0])
                if named[0] == "max_completion_tokens":
                    request["max_tokens"] = value

    def _check_model(self, policy: RetryPolicy) -> None:
        models = self._retry(self._models, policy)
        if models and self.model not in models:
            some = ", ".join(sorted(models)[:8])
            raise Rejected(
                f"the server has no model {self.model!r}; it has {some} (--autoresearch-model)"
            )
        if (window := self._window_of(models.get(self.model), policy)) is not None:
            self.fit(window)

    def _window_of(self, model: Any, policy: RetryPolicy) -> int | None:
        """Return the tokens of the model's window if the server names them."""
        meta = getattr(model, "meta", None)
        stated = [getattr(model, name, None) for name in ("max_model_len", "context_length")]
        stated.append(meta.get("n_ctx") if isinstance(meta, dict) else None)
        if getattr(model, "owned_by", None) == "llamacpp":  # its window is divided among its slots
            with suppress(ProposerError):
                props = self._retry(_props, policy)
                settings = props.get("default_generation_settings", {})
                stated.append(settings.get("n_ctx"))
        return min((n for n in stated if isinstance(n, int) and n > 0), default=None)

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
        if getattr(error, "code", None) in _QUOTA:
            return Rejected(f"the account's quota is used up: {words_of(error)}")
        return classify(error)


def _text(content: Any) -> str:
    """Return the text of an answer's content; parts that hold thoughts are none of it."""
    if not isinstance(content, list):
        return content or ""
    parts = [part for part in content if isinstance(part, dict) and part.get("type") == "text"]
    return "".join(str(part.get("text") or "") for part in parts)


async def _props(client: Any) -> dict[str, Any]:
    """Return the properties of a llama.cpp server, which lie beside its API."""
    address = str(client.base_url).rstrip("/").removesuffix("/v1")
    props = await client.get(f"{address}/props", cast_to=object)
    return props if isinstance(props, dict) else {}
