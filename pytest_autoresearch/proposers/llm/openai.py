"""Any server of the chat completions API: OpenAI's own, vLLM, llama.cpp, ollama, a gateway.

`OPENAI_BASE_URL` says where it is. The SDK hands over as success what is none: a page of HTML, or
a stream that ended early, whose finish reason is None; only ``stop`` is an answer here.
"""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from ...core.proposal import Context, Proposal, ProposalInvalid, Usage
from ...core.text import one_line
from .calls import Asker, Heard, Rejected, RetryPolicy, Transient, faults, persist, verdict
from .prompt import LIMIT_TOKENS, Prompt, compose, estimate_tokens
from .repair import Reply, Turn, converse

MAX_TOKENS = 32_000

_QUOTA = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active")


@dataclass(frozen=True)
class Answer:
    """A stream put together.

    Attributes:
        text: What was said.
        refusal: What was said instead, or ''.
        finish: Why it ended.
        usage: As the server counted, or None where it does not count.
    """

    text: str
    refusal: str
    finish: str
    usage: Any


@dataclass
class Chat(Asker):
    """Proposes what a model behind the chat completions API answers.

    Attributes:
        max_tokens: Of one answer; less where the server says that the model's window is small.
    """

    name: str = "openai"
    max_tokens: int = MAX_TOKENS
    _checked: bool = False
    _limit_tokens: int | None = None

    vendor: ClassVar[str] = "openai"
    api: ClassVar[str] = "the chat completions API"

    def propose(self, context: Context) -> Proposal:
        """Return the model's proposal; see `Proposer.propose`."""
        self._willing()
        if not self._checked:
            self._check_model(self.patience)
        prompt = compose(context, self._limit_tokens)
        return converse(lambda turns: self._ask(prompt, turns), context, self.name)

    # ------------------------------------------------------------------ one turn

    def _ask(self, prompt: Prompt, turns: Sequence[Turn]) -> Reply:
        request = self._request(prompt, turns)
        tokens = estimate_tokens(json.dumps(request))
        most = Usage(self.model, input_tokens=tokens, output_tokens=self.max_tokens)
        answer, usage = self._buy(lambda heard: self._stream(request, heard), most, self._usage)
        if answer.refusal or answer.finish == "content_filter":
            raise self._declined(usage, answer.refusal[:200] or "stopped by a content filter")
        if answer.finish != "stop":
            said = f"the answer ended with {answer.finish} after {usage.output_tokens} tokens"
            unfinished = ProposalInvalid(said)
            unfinished.usage = usage
            raise unfinished
        return Reply(answer.text, usage)

    def _request(self, prompt: Prompt, turns: Sequence[Turn]) -> dict[str, Any]:
        # caches of this API go by the longest equal prefix: the order of the parts is all they need
        messages = [
            {"role": "system", "content": "\n\n".join(prompt.system)},
            {"role": "user", "content": "\n\n".join(prompt.user)},
        ]
        for said, answered in turns:
            messages.append({"role": "assistant", "content": said or "(nothing)"})
            messages.append({"role": "user", "content": answered})
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

    def _usage(self, answer: Answer) -> Usage:
        told = answer.usage
        details = getattr(told, "prompt_tokens_details", None)
        read = getattr(details, "cached_tokens", None) or 0
        written = getattr(details, "cache_write_tokens", None) or 0
        whole = getattr(told, "prompt_tokens", None) or 0
        return Usage(
            model=self.model,
            input_tokens=max(0, whole - read - written),
            cache_read_tokens=read,
            cache_write_tokens=written,
            output_tokens=getattr(told, "completion_tokens", None) or 0,
        )

    # ------------------------------------------------------------------ the wire

    def _make_client(self) -> Any:
        def standard() -> Any:
            import openai

            # a server of one's own wants no key, but the SDK does
            own = "none" if os.environ.get("OPENAI_BASE_URL") else None
            key = os.environ.get("OPENAI_API_KEY") or own
            return openai.AsyncOpenAI(api_key=key, max_retries=0, timeout=self.patience.attempt_s)

        return self._open(standard)

    async def _stream(self, request: dict[str, Any], heard: Heard) -> Answer:
        text, refusal, finish, usage = [], [], None, None
        loop = asyncio.get_running_loop()
        async with faults(_fault), self._make_client() as client:
            async with asyncio.timeout(self.patience.silence_s) as limit:
                async for chunk in await client.chat.completions.create(**request):
                    limit.reschedule(loop.time() + self.patience.silence_s)
                    usage = getattr(chunk, "usage", None) or usage
                    for choice in getattr(chunk, "choices", None) or ():
                        text.append(choice.delta.content or "")
                        heard.text += text[-1]
                        refusal.append(getattr(choice.delta, "refusal", None) or "")
                        finish = choice.finish_reason or finish
        if finish is None:
            raise Transient("the stream ended before the answer did")
        return Answer("".join(text), "".join(refusal), finish, usage)

    def _check_model(self, patience: RetryPolicy) -> None:
        """Ask whether the server has the model, where it can say."""

        async def ask() -> dict[str, Any] | None:
            async with faults(_fault), self._make_client() as client:
                try:
                    page = await client.models.list()
                except Exception as error:
                    if getattr(error, "status_code", None) in (404, 405, 501):
                        return None  # a gateway that lists nothing
                    raise
                found = getattr(page, "data", None)
                if not isinstance(found, list):
                    where = os.environ.get("OPENAI_BASE_URL", "the default address")
                    raise Rejected(
                        f"the server at {where} does not speak the chat completions API; "
                        "OPENAI_BASE_URL usually ends with /v1"
                    )
                return {str(model.id): model for model in found}

        models = persist(ask, patience, self.api) or {}
        if models and self.model not in models:
            some = ", ".join(sorted(models)[:8])
            raise Rejected(
                f"the server has no model {self.model!r}; it has {some} (--autoresearch-model)"
            )
        window = getattr(models.get(self.model), "max_model_len", None)  # vLLM says it
        if isinstance(window, int) and window > 0:
            self.max_tokens = min(self.max_tokens, window // 2)
            self._limit_tokens = min(LIMIT_TOKENS, window * 3 // 8)  # repairs need room, too
        self._checked = True


def _fault(error: Exception) -> Exception:
    said = one_line(error)
    if getattr(error, "code", None) in _QUOTA:
        return Rejected(f"the account's quota is used up: {said}")
    return verdict(getattr(error, "status_code", None), said, error)
