"""Chat completions over the real SDK and a loopback server: behaviour of this API alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.anthropic import GOOD, context
from support.providers import OPENAI
from support.wire.server import Wire

from pytest_autoresearch.core.proposal import ProposerUnavailable
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.llm.openai import ChatCompletionsProposer

pytest.importorskip("openai")


@pytest.fixture
def serve(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., tuple[Wire, ChatCompletionsProposer]]]:
    yield lambda *script, server=None, **fields: OPENAI.serve(
        monkeypatch, list(script), server, fields
    )
    while OPENAI.wires:
        OPENAI.wires.pop().close()


def test_exhausted_quota_is_final(serve) -> None:
    wire, chat = serve({"status": 429, "code": "insufficient_quota"})
    with pytest.raises(ProposerUnavailable, match="quota is used up"):
        chat.propose(context())
    assert len(wire.requests) == 1


def test_answer_becomes_a_proposal_with_its_price(serve) -> None:
    wire, chat = serve({"text": GOOD}, effort="low")
    proposal = chat.propose(context())
    assert (proposal.title, proposal.proposer) == ("raise the rate", "openai")
    usage = proposal.usage
    assert (usage.input_tokens, usage.cache_read_tokens, usage.output_tokens) == (1000, 3000, 400)
    # $5 in, $0.50 cache read, $30 out, per million
    assert usage.cost_usd == pytest.approx(0.005 + 0.0015 + 0.012)
    [body] = wire.requests
    assert body["reasoning_effort"] == "low"
    assert [message["role"] for message in body["messages"]] == ["system", "user"]
    assert "temperature" not in body


def test_local_server_needs_no_key_price_or_usage(serve, monkeypatch, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite")
    _, chat = serve({"text": GOOD, "usage": None}, model="local", cost_budget=cost_budget)
    monkeypatch.delenv("OPENAI_API_KEY")
    usage = chat.propose(context()).usage
    assert (usage.output_tokens, usage.cost_usd) == (0, None)
    assert cost_budget.spent() == 0.0


def test_gateway_without_a_list_of_models_is_used(serve) -> None:
    _, chat = serve({"text": GOOD}, server={"status": 404})
    assert chat.propose(context()).title == "raise the rate"


def test_small_window_is_shared_between_prompt_and_answer(serve) -> None:
    local = {"id": "local", "object": "model", "created": 0, "owned_by": "me"}
    server = {"body": {"object": "list", "data": [{**local, "max_model_len": 16384}]}}
    wire, chat = serve({"text": GOOD}, server=server, model="local")
    long = replace(context(), literature="word " * 30_000)
    assert chat.propose(long).title == "raise the rate"
    assert wire.requests[0]["max_completion_tokens"] == 8192
    assert "word" not in wire.requests[0]["messages"][1]["content"]
