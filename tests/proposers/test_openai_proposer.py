"""Chat completions over the real SDK and a real loopback server: the outcomes of the other API."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.anthropic import BAD, GOOD, QUICK, context
from support.wire.chat import Chat as Speech
from support.wire.server import Wire

from pytest_autoresearch.core.money import price
from pytest_autoresearch.core.proposal import (
    ProposalInvalid,
    ProposalRefused,
    ProposerExhausted,
    ProposerUnavailable,
)
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.llm.calls import RetryPolicy
from pytest_autoresearch.proposers.llm.openai import ChatCompletionsProposer
from pytest_autoresearch.proposers.llm.provider import REFUSALS

pytest.importorskip("openai")
MODEL = "gpt-5.5"


@pytest.fixture
def serve(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., tuple[Wire, ChatCompletionsProposer]]]:
    wires: list[Wire] = []

    def start(
        *script: dict, server: dict | None = None, **fields
    ) -> tuple[Wire, ChatCompletionsProposer]:
        wire = Wire(list(script), server, Speech)
        wires.append(wire)
        monkeypatch.setenv("OPENAI_BASE_URL", wire.url + "/v1")
        monkeypatch.setenv("OPENAI_API_KEY", "not a key")
        fields.setdefault("model", MODEL)
        return wire, ChatCompletionsProposer(
            retry_policy=fields.pop("retry_policy", QUICK), **fields
        )

    yield start
    for wire in wires:
        wire.close()


def test_an_answer_becomes_a_proposal_with_its_price(serve) -> None:
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


def test_a_server_of_ones_own_needs_no_key_no_price_and_no_usage(
    serve, monkeypatch, tmp_path
) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite")
    _, chat = serve({"text": GOOD, "usage": None}, model="local", cost_budget=cost_budget)
    monkeypatch.delenv("OPENAI_API_KEY")
    usage = chat.propose(context()).usage
    assert (usage.output_tokens, usage.cost_usd) == (0, None)
    assert cost_budget.spent() == 0.0


@pytest.mark.parametrize(
    "trouble",
    [
        {"status": 429, "headers": {"retry-after": "0.05"}},
        {"status": 500}, {"status": 503}, {"status": 529}, {"status": 408}, {"status": 409},
        {"fault": "drop"}, {"fault": "half"}, {"fault": "truncated"}, {"fault": "stall"},
        {"fault": "pings"}, {"fault": "html"}, {"fault": "schema"}, {"fault": "garbage"},
        {"fault": "sse_error"}, {"fault": "body"}, {"fault": "slow"},
    ],
    ids=lambda step: str(step.get("status", step.get("fault"))),
)  # fmt: skip
def test_a_passing_fault_is_tried_again(serve, trouble: dict) -> None:
    wire, chat = serve(trouble, {"text": GOOD})
    assert chat.propose(context()).title == "raise the rate"
    assert len(wire.requests) == 2


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"status": 401}, "check the key"),
        ({"status": 403}, "check the key"),
        ({"status": 404}, "--autoresearch-model"),
        ({"status": 400}, "was refused"),
        ({"status": 429, "code": "insufficient_quota"}, "quota is used up"),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else "",
)
def test_a_lasting_fault_is_the_providers_and_is_asked_once(
    serve, trouble: dict, said: str
) -> None:
    wire, chat = serve(trouble)
    with pytest.raises(ProposerUnavailable, match=said):
        chat.propose(context())
    assert len(wire.requests) == 1


def test_a_request_to_wait_an_hour_is_not_slept_through(serve) -> None:
    wire, chat = serve({"status": 429, "headers": {"retry-after": "3600"}})
    with pytest.raises(ProposerUnavailable, match="asks to wait 3600 s"):
        chat.propose(context())
    assert len(wire.requests) == 1


def test_a_server_that_is_not_there_is_the_providers_fault(serve) -> None:
    retry_policy = RetryPolicy(deadline_s=20.0, attempt_s=20.0, silence_s=20.0, pause_s=60.0)
    wire, chat = serve({"text": GOOD}, retry_policy=retry_policy)
    wire.close()
    with pytest.raises(ProposerUnavailable, match="APIConnectionError"):
        chat.propose(context())


@pytest.mark.parametrize(
    "step", [{"refusal": "I cannot help with that."}, {"finish_reason": "content_filter"}]
)
def test_a_refusal_is_its_own_outcome_never_resent_and_ends_after_some(serve, step: dict) -> None:
    wire, chat = serve(step)
    for asked in range(1, REFUSALS + 1):
        with pytest.raises(ProposalRefused) as caught:
            chat.propose(context())
        assert caught.value.usage.requests == 1
        assert len(wire.requests) == asked
    with pytest.raises(ProposerExhausted):
        chat.propose(context())
    assert len(wire.requests) == REFUSALS


@pytest.mark.parametrize("reason", ["length", "tool_calls"])
def test_an_answer_that_did_not_stop_by_itself_is_no_proposal(serve, reason: str) -> None:
    _, chat = serve({"text": GOOD, "finish_reason": reason})
    with pytest.raises(ProposalInvalid, match=reason) as caught:
        chat.propose(context())
    assert caught.value.usage.output_tokens == 400


def test_edits_that_miss_are_mended_with_the_conversation_kept_verbatim(serve) -> None:
    wire, chat = serve({"text": BAD}, {"text": GOOD})
    assert chat.propose(context()).usage.requests == 2
    first, second = wire.requests
    assert second["messages"][:2] == first["messages"]
    assert second["messages"][2] == {"role": "assistant", "content": BAD}


@pytest.mark.parametrize(
    ("server", "said"),
    [
        ({"names": ["other"]}, "no model 'gpt-5.5'; it has other"),
        ({"body": {"hello": "world"}}, "OPENAI_BASE_URL usually ends with /v1"),
        ({"status": 401}, "check the key"),
    ],
)
def test_the_model_is_looked_up_before_anything_is_asked(serve, server: dict, said: str) -> None:
    wire, chat = serve({"text": GOOD}, server=server)
    with pytest.raises(ProposerUnavailable, match=said):
        chat.propose(context())
    assert wire.requests == []


def test_a_gateway_that_lists_no_models_is_asked_all_the_same(serve) -> None:
    _, chat = serve({"text": GOOD}, server={"status": 404})
    assert chat.propose(context()).title == "raise the rate"


def test_a_small_window_is_shared_between_prompt_and_answer(serve) -> None:
    local = {"id": "local", "object": "model", "created": 0, "owned_by": "me"}
    server = {"body": {"object": "list", "data": [{**local, "max_model_len": 16384}]}}
    wire, chat = serve({"text": GOOD}, server=server, model="local")
    long = replace(context(), literature="word " * 30_000)
    assert chat.propose(long).title == "raise the rate"
    assert wire.requests[0]["max_completion_tokens"] == 8192
    assert "word" not in wire.requests[0]["messages"][1]["content"]


def test_missing_credentials_are_named(serve, monkeypatch) -> None:
    wire, chat = serve({"text": GOOD})
    monkeypatch.delenv("OPENAI_API_KEY")
    monkeypatch.delenv("OPENAI_BASE_URL")
    with pytest.raises(ProposerUnavailable, match="OPENAI_API_KEY"):
        chat.propose(context())
    assert wire.headers == []


def test_money_is_set_aside_settled_and_capped(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    _, chat = serve({"text": GOOD}, cost_budget=cost_budget)
    assert cost_budget.spent() == 0.0
    cost = chat.propose(context()).usage.cost_usd
    assert cost_budget.spent() == pytest.approx(cost)
    chat.cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=0.02)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.02"):
        chat.propose(context())


@pytest.mark.parametrize(
    ("trouble", "costs"), [({"fault": "truncated"}, True), ({"status": 503}, False)]
)
def test_a_try_that_broke_off_is_paid_by_an_upper_estimate(
    serve, tmp_path, trouble: dict, costs: bool
) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    _, chat = serve(trouble, {"text": GOOD}, cost_budget=cost_budget)
    usage = chat.propose(context()).usage
    alone = price("openai", replace(usage, cost_usd=None))
    assert usage.cost_usd == pytest.approx(cost_budget.spent())
    assert (cost_budget.spent() > alone + 0.001) == costs


def test_a_model_that_no_list_knows_is_used_and_capped_at_the_users_price(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    wire, chat = serve({"text": GOOD}, model="local", cost_budget=cost_budget)
    with pytest.raises(ProposerUnavailable, match=r"'local'.*--autoresearch-price IN/OUT"):
        chat.check()
    chat.rates = (0.5, 2.0)
    assert chat.check() == ""
    usage = chat.propose(context()).usage
    assert usage.cost_usd == pytest.approx((4000 * 0.5 + 400 * 2.0) / 1e6) == cost_budget.spent()
    chat.cost_budget = replace(cost_budget, cap=0.003)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.00"):
        chat.propose(context())
    assert len(wire.requests) == 1
    chat.rates, chat.cost_budget = None, replace(cost_budget, cap=None)
    assert chat.check() == ""
    assert chat.propose(context()).usage.cost_usd is None
