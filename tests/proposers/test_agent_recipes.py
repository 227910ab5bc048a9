"""What is known of each agent CLI: how it is asked, and how what it prints is read."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pytest_autoresearch.core.proposal import Usage
from pytest_autoresearch.proposers.agents.recipes import RECIPES, AgentReply, AgentRequest, read_any


def claude(**fields: object) -> str:
    result = {
        "type": "result", "subtype": "success", "is_error": False, "stop_reason": "end_turn",
        "result": "Title: a", "total_cost_usd": 0.0532,
        "usage": {"input_tokens": 9, "cache_creation_input_tokens": 7,
                  "cache_read_input_tokens": 5, "output_tokens": 3},
        "modelUsage": {"claude-haiku-5-5": {"outputTokens": 1},
                       "claude-opus-5-5": {"outputTokens": 2}},
    }  # fmt: skip
    return json.dumps(result | fields)


CLAUDE_USED = Usage("claude-opus-5-5", 9, 5, 7, 3, cost_usd=0.0532)
CODEX = "\n".join([
    '{"type":"thread.started","thread_id":"t"}',
    "a line that is no JSON",
    '{"type":"item.completed","item":{"type":"reasoning","text":"hm"}}',
    '{"type":"item.completed","item":{"type":"agent_message","text":"Title: a\u2028b"}}',
    '{"type":"turn.completed","usage":{"input_tokens":100,"cached_input_tokens":60,'
    '"cache_write_input_tokens":10,"output_tokens":20,"reasoning_output_tokens":15}}',
])  # fmt: skip


def pi(*messages: dict[str, object]) -> str:
    lines = [{"type": "agent_start"}, {"type": "message_end", "message": {"role": "user"}}]
    lines += [{"type": "message_end", "message": {"role": "assistant", **m}} for m in messages]
    return "\n".join(json.dumps(line) for line in lines)


def spoke(text: str, **fields: object) -> dict[str, object]:
    usage = {"input": 10, "output": 2, "cacheRead": 4, "cacheWrite": 1, "cost": {"total": 0.01}}
    content = [{"type": "thinking", "thinking": "hm"}, {"type": "text", "text": text}]
    return {"content": content, "usage": usage, "model": "m", "stopReason": "stop", **fields}


GEMINI = {
    "response": "Title: a",
    "stats": {"models": {"gemini-3-pro": {"tokens": {
        "prompt": 100, "cached": 30, "candidates": 5, "thoughts": 6, "total": 111}}}},
}  # fmt: skip
AIDER = """\
Aider v0.86.2
Main model: anthropic/claude-sonnet-5-5 with diff edit format
Title: a
Applied edit to train.py
Tokens: 2.3k sent, 200 received. Cost: $0.01 message, $0.01 session.
Tokens: 2.5k sent, 100 received. Cost: $0.02 message, $0.03 session.
"""


@pytest.mark.parametrize(
    ("name", "output", "reply"),
    [
        ("claude", claude(), AgentReply("Title: a", CLAUDE_USED)),
        ("claude", "warning: old\n" + claude(), AgentReply("Title: a", CLAUDE_USED)),
        ("claude", claude(stop_reason="refusal", result="I cannot"),
         AgentReply("I cannot", CLAUDE_USED, refused="I cannot")),
        ("claude", claude(is_error=True, api_error_status=529, result="Overloaded"),
         AgentReply("Overloaded", CLAUDE_USED, failure="API error 529: Overloaded")),
        ("claude", claude(subtype="error_max_turns", is_error=True, result=None),
         AgentReply("", CLAUDE_USED, unfinished="error_max_turns")),
        ("claude", claude(subtype="error_max_budget_usd", result=None),
         AgentReply("", CLAUDE_USED, unfinished="error_max_budget_usd")),
        ("claude", claude(subtype="error_during_execution", result=None),
         AgentReply("", CLAUDE_USED, failure="error_during_execution")),
        ("claude", claude(is_error=True, result="Not logged in"),
         AgentReply("Not logged in", CLAUDE_USED, failure="Not logged in")),
        ("claude", claude(is_error=True, result=""), AgentReply("", CLAUDE_USED, failure="it failed")),
        ("claude", claude(total_cost_usd="free", usage=[], modelUsage=None), AgentReply("Title: a")),
        ("claude", "a\nKilled", AgentReply(failure="it gave no answer that can be read, but a Killed")),
        ("claude", "", AgentReply(failure="it gave no answer that can be read, but nothing")),
        ("codex", CODEX, AgentReply("Title: a\u2028b", Usage("", 30, 60, 10, 20))),
        ("codex", '{"type":"turn.failed","error":{"message":"429 Too Many Requests"}}',
         AgentReply("last words", failure="429 Too Many Requests")),
        ("codex", '{"type":"error","message":"reconnecting"}\n' + CODEX,
         AgentReply("Title: a\u2028b", Usage("", 30, 60, 10, 20))),
        ("pi", pi(spoke("x"), spoke("Title: a")),
         AgentReply("Title: a", Usage("m", 20, 8, 2, 4, cost_usd=0.02))),
        ("pi", pi(spoke("", stopReason="error", errorMessage="401 invalid x-api-key", usage=0)),
         AgentReply("", Usage("m"), failure="401 invalid x-api-key")),
        ("pi", pi(spoke("", stopReason="error", errorMessage="The model refused", usage=0)),
         AgentReply("", Usage("m"), refused="The model refused")),
        ("pi", pi(spoke("Tit", stopReason="length")),
         AgentReply("Tit", Usage("m", 10, 4, 1, 2, cost_usd=0.01), unfinished="length")),
        ("pi", "", AgentReply(failure="it gave no answer that can be read, but nothing")),
        ("gemini", json.dumps(GEMINI), AgentReply("Title: a", Usage("gemini-3-pro", 70, 30, 0, 11))),
        ("gemini", json.dumps({"stats": {"models": {
            "pro": {"tokens": {"prompt": 9, "candidates": 2, "total": 11}},
            "flash": {"tokens": {"prompt": 1, "candidates": 1, "total": 2}}}}}),
         AgentReply("", Usage("pro", 10, 0, 0, 3))),
        ("gemini", json.dumps({"error": {"type": "ApiError", "message": "quota", "code": 429}}),
         AgentReply(failure="quota")),
        ("aider", AIDER, AgentReply(AIDER, Usage("claude-sonnet-5-5", cost_usd=0.03))),
        ("aider", "litellm.AuthenticationError: bad key\n",
         AgentReply("litellm.AuthenticationError: bad key\n",
              failure="litellm.AuthenticationError: bad key")),
    ],
)  # fmt: skip
def test_reply_of_a_cli_is_parsed(name: str, output: str, reply: AgentReply) -> None:
    assert RECIPES[name].read(output, "last words") == reply


@pytest.mark.parametrize("read", [*(recipe.read for recipe in RECIPES.values()), read_any])
@pytest.mark.parametrize(
    "output",
    ["", "{", "[]", "null", "{}", '{"usage": 3, "modelUsage": [1], "stats": "x", "message": 7}',
     '{"type":"message_end","message":{"role":"assistant","usage":{"cost":"no","input":-1}}}',
     '{"type":"item.completed","item":[]}\n{"type":"turn.completed"}\n{"type":"turn.failed"}',
     "Cost: $1.2.3 session\nCost: $1.2.3\nModel:\nCost: 9999999999999", "\0\ud800",
     '{"result": "' + "[" * 5000 + '"}', "[" * 100_000, '{"a":' * 100_000],
)  # fmt: skip
def test_any_output_is_parsed(read: Callable[[str, str], AgentReply], output: str) -> None:
    reply = read(output, "")
    assert isinstance(reply.text, str)
    assert reply.usage.cost_usd is None
    assert reply.usage.input_tokens == 0


def test_codex_keeps_its_own_sandbox_without_ours() -> None:
    asked = AgentRequest(("train.py",), Path("p"), Path("last"), "", "", "", 1.0, confined=True)
    bypass = "--dangerously-bypass-approvals-and-sandbox"
    assert bypass in RECIPES["codex"].argv(asked)
    alone = RECIPES["codex"].argv(replace(asked, confined=False))
    assert bypass not in alone
    assert alone[alone.index("-s") + 1] == "workspace-write"
