"""Recipes of agent CLIs: their arguments, their keys, and how to read their output.

Flags were tried with claude 2.1, codex 0.169, pi 0.73 and gemini 0.61 against loopback servers;
aider's are from its manual. An exit status is never enough: pi exits 0 after a 401, and claude
reports an API error as a success.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from ...core.proposal import Usage
from ...core.text import one_line

MAX_TURNS = 60


@dataclass(frozen=True)
class AgentRequest:
    """Input of one run of a CLI.

    Attributes:
        files: Editable files, relative to its working directory.
        prompt: File that holds the prompt, which is also its standard input.
        last: File that its last message may be written to.
        model, effort: Options of the user, or ''.
        provider: Provider of the key that it gets, as `Key` names it.
        budget_usd: Bound on its cost.
        confined: Whether our sandbox keeps it to its copy.
    """

    files: Sequence[str]
    prompt: Path
    last: Path
    model: str
    effort: str
    provider: str
    budget_usd: float
    confined: bool


@dataclass(frozen=True)
class AgentReply:
    """Result of one run, as the CLI reports it.

    Attributes:
        text: Its last message.
        usage: As far as reported; `cost_usd` is None if it is not.
        failure: Reason for no answer that is not the model's fault, or ''.
        refused: The model's refusal, or ''.
        unfinished: Limit that cut the answer off (turns, budget, length), or ''.
    """

    text: str = ""
    usage: Usage = field(default_factory=Usage)
    failure: str = ""
    refused: str = ""
    unfinished: str = ""


@dataclass(frozen=True)
class Key:
    """An environment variable with a credential.

    Attributes:
        name: The caller's variable.
        provider: Its provider; the first word of a model ``provider/name``.
        renamed: The CLI's variable if it has another name, or ''.
    """

    name: str
    provider: str
    renamed: str = ""


@dataclass(frozen=True)
class Recipe:
    """How to run one CLI.

    Attributes:
        program: Looked up on PATH.
        argv: Returns its arguments without the program; the user's follow them.
        read: Reads its reply from its output and the file of its last message.
        keys: Credentials; the first that is set is passed on, and no other.
        settings: Variables without secrets that are passed on.
        install: Command that installs it.
    """

    program: str
    argv: Callable[[AgentRequest], list[str]]
    read: Callable[[str, str], AgentReply]
    keys: tuple[Key, ...] = ()
    settings: tuple[str, ...] = ()
    install: str = ""


ANTHROPIC = Key("ANTHROPIC_API_KEY", "anthropic")

OPENAI = Key("OPENAI_API_KEY", "openai")

GEMINI = (Key("GEMINI_API_KEY", "google"), Key("GOOGLE_API_KEY", "google", "GEMINI_API_KEY"))


def _option(flag: str, value: str) -> list[str]:
    return [flag, value] if value else []


def _objects(text: str) -> Iterator[Mapping[str, Any]]:
    """Yield the JSON objects of a text, one per line."""
    for line in text.split("\n"):  # not splitlines, which also splits at characters in a string
        if line.startswith("{") and (value := _loads(line)) is not None:
            yield value


def _object(text: str) -> Mapping[str, Any] | None:
    """Return the one JSON object of a text, after any warnings."""
    return _loads(text) or _loads(text[text.find("\n{") + 1 :])


def _loads(text: str) -> Mapping[str, Any] | None:
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, dict) else None


def _unreadable(output: str) -> AgentReply:
    last = one_line(output.strip()[-150:]) or "nothing"
    return AgentReply(failure=f"it gave no answer that can be read, but {last}")


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _int(value: object) -> int:
    return int(value) if isinstance(value, int | float) and 0 <= value < 1e12 else 0


def _dollars(value: object) -> float | None:
    return float(value) if isinstance(value, int | float) and 0 <= value < 1e6 else None


# Claude Code


def _ask_claude(request: AgentRequest) -> list[str]:
    edits = [f"Edit(/{name})" for name in request.files]
    return [
        *("--bare", "-p", "--output-format", "json", "--no-session-persistence"),
        *("--tools", "Read,Edit", "--allowedTools", "Read(/**)", *edits),
        *("--permission-mode", "dontAsk", "--strict-mcp-config"),
        *("--max-turns", str(MAX_TURNS), "--max-budget-usd", f"{request.budget_usd:g}"),
        *_option("--model", request.model),
        *_option("--effort", request.effort),
    ]


def _read_claude(output: str, last: str) -> AgentReply:
    result = _object(output)
    if result is None:
        return _unreadable(output)
    used, models = _map(result.get("usage")), _map(result.get("modelUsage"))
    model = max(models, key=lambda name: _int(_map(models[name]).get("outputTokens")), default="")
    usage = Usage(
        model,
        _int(used.get("input_tokens")),
        _int(used.get("cache_read_input_tokens")),
        _int(used.get("cache_creation_input_tokens")),
        _int(used.get("output_tokens")),
        cost_usd=_dollars(result.get("total_cost_usd")),
    )
    reply = AgentReply(str(result.get("result") or ""), usage)
    if result.get("stop_reason") == "refusal":
        return replace(reply, refused=one_line(reply.text, 200) or "no reason given")
    subtype = str(result.get("subtype"))
    if subtype.startswith("error_max"):
        return replace(reply, unfinished=subtype)
    if result.get("is_error") or subtype != "success":
        status = result.get("api_error_status")
        what = f"API error {status}" if status else subtype.removeprefix("success")
        parts = (part for part in (what, reply.text) if part)
        return replace(reply, failure=one_line(": ".join(parts), 200) or "it failed")
    return reply


# codex


def _ask_codex(request: AgentRequest) -> list[str]:
    # its own confinement cannot be set up within ours
    sandbox = ("--dangerously-bypass-approvals-and-sandbox",) if request.confined else ()
    return [
        *("exec", "--json", "--ephemeral", "--ignore-user-config", "--skip-git-repo-check"),
        *(sandbox or ("-s", "workspace-write")),
        *("-o", str(request.last)),
        *_option("-m", request.model),
        *(("-c", f'model_reasoning_effort="{request.effort}"') if request.effort else ()),
        "-",
    ]


def _read_codex(output: str, last: str) -> AgentReply:
    reply = AgentReply(text=last)
    for event in _objects(output):
        kind = event.get("type")
        if kind == "item.completed" and _map(event.get("item")).get("type") == "agent_message":
            reply = replace(reply, text=str(event["item"].get("text") or "") or reply.text)
        elif kind == "turn.completed":
            used = _map(event.get("usage"))
            read = _int(used.get("cached_input_tokens"))
            written = _int(used.get("cache_write_input_tokens"))
            new = max(0, _int(used.get("input_tokens")) - read - written)
            usage = Usage("", new, read, written, _int(used.get("output_tokens")))
            reply = replace(reply, usage=usage, failure="")
        elif kind in ("turn.failed", "error"):
            message = _map(event.get("error")).get("message") or event.get("message")
            reply = replace(reply, failure=one_line(message or "it failed", 200))
    return reply


# pi


def _ask_pi(request: AgentRequest) -> list[str]:
    return [
        *("-p", "--mode", "json", "--no-session", "--tools", "read,edit", "--offline"),
        *("--no-extensions", "--no-skills", "--no-prompt-templates", "--no-context-files"),
        *(_option("--provider", request.provider) if "/" not in request.model else ()),
        *_option("--model", request.model),
        *_option("--thinking", request.effort),
    ]


def _read_pi(output: str, last: str) -> AgentReply:
    usage, text, reason, error = Usage(), "", "", ""
    for event in _objects(output):
        message = _map(event.get("message"))
        if event.get("type") != "message_end" or message.get("role") != "assistant":
            continue
        used = _map(message.get("usage"))
        model = str(message.get("model") or usage.model)
        turn = Usage(
            model,
            _int(used.get("input")),
            _int(used.get("cacheRead")),
            _int(used.get("cacheWrite")),
            _int(used.get("output")),
            cost_usd=_dollars(_map(used.get("cost")).get("total")),
        )
        usage += turn
        parts = message.get("content")
        texts = [p for p in parts if isinstance(p, dict)] if isinstance(parts, list) else []
        text = "".join(str(p.get("text", "")) for p in texts if p.get("type") == "text") or text
        reason = str(message.get("stopReason") or "")
        error = one_line(message.get("errorMessage") or "", 200)
    if not reason:
        return _unreadable(output)
    reply = AgentReply(text, usage)
    if reason in ("error", "aborted"):
        if "refus" in error.lower():
            return replace(reply, refused=error)
        return replace(reply, failure=error or reason)
    return replace(reply, unfinished=reason) if reason == "length" else reply


# gemini


def _ask_gemini(request: AgentRequest) -> list[str]:
    return [
        *("--skip-trust", "-o", "json", "--approval-mode", "auto_edit"),
        *_option("-m", request.model),
        *("-p", "Do what the text above says."),
    ]


def _read_gemini(output: str, last: str) -> AgentReply:
    result = _object(output)
    if result is None:
        return _unreadable(output)
    usage, most = Usage(), -1
    for name, model in _map(_map(result.get("stats")).get("models")).items():
        tokens = _map(_map(model).get("tokens"))
        read, whole = _int(tokens.get("cached")), _int(tokens.get("total"))
        new = max(0, _int(tokens.get("prompt")) - read)
        output_tokens = _int(tokens.get("candidates")) + _int(tokens.get("thoughts"))
        largest = name if whole > most else usage.model
        usage += Usage(largest, new, read, output_tokens=output_tokens)
        most = max(most, whole)
    error = _map(result.get("error"))
    failure = one_line(error.get("message") or "it failed", 200) if error else ""
    return AgentReply(str(result.get("response") or ""), usage, failure)


# aider


def _ask_aider(request: AgentRequest) -> list[str]:
    return [
        *("--yes-always", "--message-file", str(request.prompt), "--no-git", "--no-pretty"),
        *("--no-stream", "--no-check-update", "--no-analytics", "--no-show-model-warnings"),
        *("--no-suggest-shell-commands", "--no-detect-urls", "--map-tokens", "0"),
        *_option("--model", request.model),
        *_option("--reasoning-effort", request.effort),
        *request.files,
    ]


def _read_aider(output: str, last: str) -> AgentReply:
    costs = re.findall(r"\$([\d.]+) session", output)
    model = re.search(r"^(?:Main model|Model): (\S+)", output, re.MULTILINE)
    failed = re.search(r"^litellm\.\w*(?:Error|Exception).*", output, re.MULTILINE)
    usage = Usage(
        model[1].partition("/")[2] or model[1] if model else "",
        cost_usd=_number(costs[-1]) if costs else None,
    )
    return AgentReply(output, usage, one_line(failed[0], 200) if failed else "")


# Any other


def read_any(output: str, last: str) -> AgentReply:
    """Read the output of any command, with its lines ``Model: name`` and ``Cost: $0.0123``."""
    model = re.findall(r"^model:[ \t]*(\S+)[ \t]*$", output, re.IGNORECASE | re.MULTILINE)
    cost = re.findall(r"^cost:[ \t]*\$?([\d.]+)[ \t]*$", output, re.IGNORECASE | re.MULTILINE)
    usage = Usage(model[-1][:100] if model else "", cost_usd=_number(cost[-1]) if cost else None)
    return AgentReply(output, usage)


def _number(text: str) -> float | None:
    try:
        return _dollars(float(text))
    except ValueError:
        return None


RECIPES = {
    "claude": Recipe(
        "claude",
        _ask_claude,
        _read_claude,
        (ANTHROPIC, Key("ANTHROPIC_AUTH_TOKEN", "anthropic")),  # --bare takes no login
        ("ANTHROPIC_BASE_URL",),
        "npm install -g @anthropic-ai/claude-code",
    ),
    "codex": Recipe(
        "codex",
        _ask_codex,
        _read_codex,
        (Key("CODEX_API_KEY", "openai"), Key("OPENAI_API_KEY", "openai", "CODEX_API_KEY")),
        (),
        "npm install -g @openai/codex",
    ),
    "pi": Recipe(
        "pi",
        _ask_pi,
        _read_pi,
        (ANTHROPIC, OPENAI, *GEMINI),
        (),
        "npm install -g @mariozechner/pi-coding-agent",
    ),
    "gemini": Recipe(
        "gemini",
        _ask_gemini,
        _read_gemini,
        GEMINI,
        (),  # with GOOGLE_GEMINI_BASE_URL it finds no way to authenticate
        "npm install -g @google/gemini-cli",
    ),
    "aider": Recipe(
        "aider",
        _ask_aider,
        _read_aider,
        (ANTHROPIC, OPENAI, GEMINI[0]),
        ("OPENAI_API_BASE", "OLLAMA_API_BASE"),
        "pipx install aider-chat",
    ),
}
"""By the name after ``command:``."""
