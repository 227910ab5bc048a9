"""Claude models over the real SDK and a loopback server: behaviour of this API alone."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.anthropic import GOOD, MODEL, QUICK, context
from support.providers import ANTHROPIC
from support.wire.server import USAGE, Wire

from pytest_autoresearch.core.money import price
from pytest_autoresearch.core.proposal import (
    Proposal,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.llm.anthropic import AnthropicProposer
from pytest_autoresearch.proposers.llm.calls import RetryPolicy

PROMPT = 0.0103
"""Dollars of the wire server's prompt at the model's list price, without an answer."""


@pytest.fixture
def serve(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., tuple[Wire, AnthropicProposer]]]:
    yield lambda *script, model=None, **fields: ANTHROPIC.serve(
        monkeypatch, list(script), model, fields
    )
    while ANTHROPIC.wires:
        ANTHROPIC.wires.pop().close()


def test_answer_becomes_a_proposal_with_its_price(serve) -> None:
    _, claude = serve({"text": GOOD})
    proposal = claude.propose(context())
    assert (proposal.title, proposal.hypothesis) == ("raise the rate", "it is low")
    assert proposal.edits[0].replace == "import math\nLR = 0.03\nDEPTH = 2\n"
    usage = proposal.usage
    assert (usage.input_tokens, usage.cache_read_tokens) == (1000, 3000)
    assert (usage.cache_write_tokens, usage.output_tokens, usage.requests) == (2000, 400, 1)
    # $2 in, $0.1 cache read, $4 one-hour write, $10 out, per million
    assert usage.cost_usd == pytest.approx(0.002 + 0.0003 + 0.008 + 0.004)


@pytest.mark.parametrize(("per_byte", "dropped"), [(0.25, False), (0.4, True), (None, True)])
def test_provider_counts_a_prompt_that_may_be_too_long(
    serve, per_byte: float | None, dropped: bool
) -> None:
    wire, claude = serve({"text": GOOD})
    wire.tokens_per_byte = per_byte
    notes = "a note on optimizers " * 500
    claude.propose(replace(context(), literature=notes))
    assert wire.counted == []  # short enough by the upper estimate
    long = replace(context(), literature=notes, program="# lower it\n" + "brief " * 32_000)
    claude.propose(long)
    [counted] = wire.counted
    assert set(counted) == {"model", "system", "messages"}
    assert "a note on optimizers" in json.dumps(counted)
    assert ("a note on optimizers" not in json.dumps(wire.requests[-1])) == dropped


def test_request_is_cached_for_an_hour_and_has_no_removed_parameters(serve) -> None:
    wire, claude = serve({"text": GOOD}, effort="low")
    claude.propose(context())
    [body] = wire.requests
    assert body["system"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert body["messages"][0]["content"][0]["cache_control"]["ttl"] == "1h"
    assert body["output_config"] == {"effort": "low"}
    assert body["max_tokens"] == 8000
    assert not {"temperature", "tools", "tool_choice"} & set(body)


def test_retries_end_at_the_deadline(serve) -> None:
    retry_policy = RetryPolicy(deadline_s=1.0, attempt_s=1.0, silence_s=1.0, pause_s=0.05)
    wire, claude = serve({"status": 529, "type": "overloaded_error"}, retry_policy=retry_policy)
    with pytest.raises(ProposerUnavailable, match="the attempt is not charged"):
        claude.propose(context())
    assert len(wire.requests) > 2


def test_users_client_is_used(serve, tmp_path, monkeypatch) -> None:
    wire, _ = serve({"text": GOOD})
    (tmp_path / "mine.py").write_text(
        "import anthropic\n"
        f"def client(): return anthropic.AsyncAnthropic(base_url={wire.url!r}, api_key='other')\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("ANTHROPIC_BASE_URL", "http://127.0.0.1:9")
    claude = AnthropicProposer(model=MODEL, client="mine:client", retry_policy=QUICK)
    assert claude.propose(context()).title == "raise the rate"
    assert "other" in str(wire.headers[0])


def test_retries_of_the_users_client_are_switched_off(serve, tmp_path, monkeypatch) -> None:
    wire, _ = serve({"status": 529, "type": "overloaded_error"}, {"text": GOOD})
    (tmp_path / "eager.py").write_text(
        "import anthropic\n"
        f"def client(): return anthropic.AsyncAnthropic(base_url={wire.url!r}, max_retries=9)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    claude = AnthropicProposer(model=MODEL, client="eager:client", retry_policy=QUICK)
    assert claude.propose(context()).title == "raise the rate"
    assert [h["x-stainless-retry-count"] for h in wire.headers] == ["0", "0"]


@pytest.mark.parametrize("code", ["enforced_spend_limit_reached", "contract_spend_limit_reached"])
def test_spend_limit_is_final(serve, code: str) -> None:
    wire, claude = serve({"status": 429, "details": {"error_code": code}})
    with pytest.raises(ProposerUnavailable, match="spend limit is reached"):
        claude.propose(context())
    assert len(wire.requests) == 1


@pytest.mark.filterwarnings("error")
def test_warning_raised_as_an_error_is_final(serve) -> None:
    wire, claude = serve({"text": GOOD})
    claude.model = "claude-sonnet-4-5"
    with pytest.raises(ProposerUnavailable, match=r"deprecated.*--autoresearch-model"):
        claude.propose(context())
    assert wire.requests == []


def test_propose_works_beside_a_running_event_loop(serve) -> None:
    _, claude = serve({"text": GOOD})

    async def here() -> Proposal:
        return await asyncio.to_thread(claude.propose, context())

    assert asyncio.run(here()).title == "raise the rate"
    assert claude.propose(context()).title == "raise the rate"


def test_abandoned_call_stays_spent(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    retry_policy = RetryPolicy(deadline_s=1.0, attempt_s=0.5, silence_s=0.3, pause_s=0.05)
    _, claude = serve(
        {"fault": "stall"}, {"status": 529}, cost_budget=cost_budget, retry_policy=retry_policy
    )
    with pytest.raises(ProposerUnavailable):
        claude.propose(context())
    assert cost_budget.spent() > 0.05


@pytest.mark.parametrize(
    ("trouble", "least", "most"),
    [
        ({"status": 529}, 0, 0),
        ({"fault": "half"}, PROMPT, PROMPT + 0.0001),
        ({"fault": "truncated", "text": "x" * 3000}, PROMPT + 0.01, PROMPT + 0.0101),
        ({"fault": "sse_error"}, PROMPT, PROMPT + 0.0001),
        ({"fault": "drop"}, 0.001, 0.05),  # no usage was reported: the whole prompt, estimated
        ({"fault": "html"}, 0.001, 0.05),
        ({"fault": "stall"}, 0.08, 0.1),  # given up by us: the longest answer there can be
        ({"fault": "pings"}, 0.08, 0.1),
    ],
    ids=lambda step: str(step.get("status", step.get("fault"))) if isinstance(step, dict) else "",
)
def test_broken_try_costs_its_prompt_and_the_part_that_arrived(
    serve, tmp_path, trouble: dict, least: float, most: float
) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    _, claude = serve(trouble, {"text": GOOD}, cost_budget=cost_budget)
    usage = claude.propose(context()).usage
    assert least <= cost_budget.spent() - 0.0143 + 1e-9 <= most + 1e-6
    assert usage.cost_usd == pytest.approx(cost_budget.spent())
    assert usage.output_tokens == 400


def test_broken_tries_end_at_the_cap(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=0.2)
    retry_policy = RetryPolicy(deadline_s=30.0, attempt_s=5.0, silence_s=5.0, pause_s=0.001)
    wire, claude = serve({"fault": "truncated"}, cost_budget=cost_budget, retry_policy=retry_policy)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.20"):
        claude.propose(context())
    assert cost_budget.spent() <= 0.2
    assert len(wire.requests) > 3


def test_deprecated_model_gives_a_warning(serve) -> None:
    assert serve({"text": GOOD}, model={"lifecycle": "deprecated"})[1].check() == (
        f"{MODEL} is deprecated: it will be retired"
    )
    assert serve({"text": GOOD})[1].check() == ""


def test_answer_of_the_test_server_has_the_documented_price() -> None:
    usage = Usage(
        MODEL, USAGE["input_tokens"], USAGE["cache_read_input_tokens"],
        USAGE["cache_creation_input_tokens"], USAGE["output_tokens"],
    )  # fmt: skip
    assert price("anthropic", usage) == pytest.approx(0.0143)
