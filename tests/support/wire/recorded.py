"""The server with recorded conversations instead of a flat script.

It bills like a provider: a prefix that is marked for the cache is written once and then read,
everything else is new input. Tokens are estimated as bytes divided by three (an upper estimate for
code); thinking, which an answer does not contain, is an assumed number.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from .server import USAGE, Wire

RECORDINGS = Path(__file__).resolve().parents[2] / "recordings"

STREAMS = ("truncated", "half", "garbage", "sse_error", "stall", "pings")
"""Faults after the usage of the prompt was sent: prompt and partial answer are billed."""

THINKING = 3000
"""Tokens of thinking assumed behind each answer, billed as output."""


@dataclass(frozen=True)
class Conversation:
    """The turns of one attempt, and its expected outcome; see recordings/campaign.yaml."""

    name: str
    outcome: str
    steps: tuple[dict[str, Any], ...]
    on: str = ""

    @property
    def answers(self) -> list[dict[str, Any]]:
        """Return the steps that are answers and not faults."""
        return [step for step in self.steps if is_answer(step)]


@dataclass(frozen=True)
class Bill:
    """What one answer of a conversation cost, or one that broke off, in tokens."""

    conversation: str
    model: str
    usage: dict[str, int]


def outcome(verdict: str | None, reason: str) -> str:
    """What became of an attempt, as the recordings name it."""
    if verdict in ("keep", "discard", "guard"):
        return "trained"
    refused = verdict == "invalid" and reason.startswith("the model declined")
    return "refused" if refused else str(verdict)


def is_answer(step: dict[str, Any]) -> bool:
    return "status" not in step and "fault" not in step


def read(folder: Path = RECORDINGS, names: Sequence[str] = ()) -> list[Conversation]:
    """Read the recorded conversations, all of them or those named, in their order."""
    found = []
    for entry in yaml.safe_load((folder / "campaign.yaml").read_text(encoding="utf-8")):
        steps = []
        for step in entry["steps"]:
            file = step.pop("answer", None)
            text = {"text": (folder / file).read_text(encoding="utf-8")} if file else {}
            steps.append({**step, **text})
        found.append(
            Conversation(entry["name"], entry["outcome"], tuple(steps), entry.get("on", ""))
        )
    return [one for one in found if not names or one.name in names]


class Recorded(Wire):
    """Answers a first question with the next conversation, later turns with its next step.

    After the recorded steps of a conversation, its last one is repeated.

    `bills` is what it charges; `unknown` the most that a client must expect where the answer has no
    usage (a page of HTML instead of a stream), which is not charged.
    """

    def __init__(self, conversations: Sequence[Conversation]) -> None:
        self.conversations = conversations
        self.asked: list[str] = []
        self.faults = 0
        self.bills: list[Bill] = []
        self.unknown: list[Bill] = []
        self._steps: Iterator[dict[str, Any]] = iter(())
        self._last: dict[str, Any] = {}
        self._answered = True
        self._cached: set[str] = set()
        super().__init__([])

    def step(self, body: dict[str, Any]) -> dict[str, Any]:
        """The next step of the conversation that the request belongs to."""
        with self._lock:
            self.requests.append(body)
            if self._answered and len(body["messages"]) == 1:
                if len(self.asked) == len(self.conversations):
                    message = "nothing more was recorded"
                    return {"status": 400, "type": "invalid_request_error", "message": message}
                conversation = self.conversations[len(self.asked)]
                self.asked.append(conversation.name)
                self._steps = iter(conversation.steps)
            self._last = step = next(self._steps, self._last)
            self._answered = is_answer(step)
            self.faults += not self._answered
            return self._charge(body, step)

    def _charge(self, body: dict[str, Any], step: dict[str, Any]) -> dict[str, Any]:
        """Bill a step, and have it say so."""
        name, model, text = self.asked[-1], body["model"], step.get("text", "")
        if "status" in step:
            return step
        if not is_answer(step) and step["fault"] not in STREAMS:
            most = dict.fromkeys(USAGE, 0)
            most["cache_creation_input_tokens"] = tokens(json.dumps(body))
            self.unknown.append(Bill(name, model, most))
            return step
        thinking = THINKING if is_answer(step) and text else 0
        usage = self._usage(body, thinking + tokens(text))
        self.bills.append(Bill(name, model, usage))
        return {**step, "usage": usage}

    def _usage(self, body: dict[str, Any], output: int) -> dict[str, int]:
        """Count what is read from the cache, written to it, and neither."""
        sent = written = read = 0
        prefix = hashlib.sha256()
        for block in _blocks(body):
            sent += tokens(block["text"])
            prefix.update(json.dumps([block["role"], block["text"]]).encode())
            if "cache_control" in block:
                written = sent
                if prefix.hexdigest() in self._cached:
                    read = sent
                self._cached.add(prefix.hexdigest())
        return {
            "input_tokens": sent - written,
            "cache_creation_input_tokens": written - read,
            "cache_read_input_tokens": read,
            "output_tokens": output,
        }


def tokens(text: str) -> int:
    """An upper estimate."""
    return len(text.encode()) // 3 + 1


def dollars(bill: Bill) -> float:
    """What a bill comes to at list price; what is written to a cache lives for an hour."""
    from genai_prices import Usage, calc_price

    used = bill.usage
    written, read = used["cache_creation_input_tokens"], used["cache_read_input_tokens"]
    counts = Usage(
        input_tokens=used["input_tokens"] + written + read,
        cache_read_tokens=read,
        cache_write_tokens=written,
        cache_write_1h_tokens=written,
        output_tokens=used["output_tokens"],
    )
    return float(calc_price(counts, bill.model, provider_id="anthropic").total_price)


def _blocks(body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """All blocks of text of a request, in the order in which caches see them."""
    for block in body["system"]:
        yield {"role": "system", **block}
    for message in body["messages"]:
        content = message["content"]
        if isinstance(content, str):
            content = [{"type": "text", "text": content}]
        for block in content:
            yield {"role": message["role"], **block}
