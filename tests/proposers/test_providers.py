"""LLM proposers over the real SDKs and loopback servers: behaviour that both APIs share."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.anthropic import BAD, GOOD, QUICK, context
from support.providers import ANTHROPIC, OPENAI, Provider
from support.wire.server import Wire

from pytest_autoresearch.core.proposal import (
    ProposalInvalid,
    ProposalRefused,
    ProposerExhausted,
    ProposerUnavailable,
)
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.llm.calls import RetryPolicy
from pytest_autoresearch.proposers.llm.provider import REFUSALS, LLMProposer

pytest.importorskip("openai")

Serve = Callable[..., tuple[Wire, LLMProposer]]


@pytest.fixture(params=[ANTHROPIC, OPENAI], ids=lambda provider: provider.name)
def provider(request: pytest.FixtureRequest) -> Iterator[Provider]:
    yield request.param
    while request.param.wires:
        request.param.wires.pop().close()


@pytest.fixture
def serve(provider: Provider, monkeypatch: pytest.MonkeyPatch) -> Serve:
    def start(*script: dict, server: dict | None = None, **fields) -> tuple[Wire, LLMProposer]:
        return provider.serve(monkeypatch, list(script), server, fields)

    return start


@pytest.mark.parametrize(
    "fault",
    [
        {"status": 429, "type": "rate_limit_error", "headers": {"retry-after": "0.05"}},
        {"status": 529, "type": "overloaded_error"},
        {"status": 500}, {"status": 503}, {"status": 504}, {"status": 408}, {"status": 409},
        {"fault": "drop"}, {"fault": "half"}, {"fault": "truncated"}, {"fault": "stall"},
        {"fault": "pings"}, {"fault": "html"}, {"fault": "schema"}, {"fault": "garbage"},
        {"fault": "sse_error"}, {"fault": "body"}, {"fault": "slow"},
    ],
    ids=lambda step: str(step.get("status", step.get("fault"))),
)  # fmt: skip
def test_transient_fault_is_retried(serve: Serve, fault: dict) -> None:
    wire, proposer = serve(fault, {"text": GOOD})
    proposal = proposer.propose(context())
    assert proposal.title == "raise the rate"
    assert len(wire.requests) == 2
    assert proposal.usage.requests == 1


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        ({"status": 401, "type": "authentication_error"}, "check the key"),
        ({"status": 403, "type": "permission_error"}, "check the key"),
        ({"status": 402, "type": "billing_error"}, "cannot pay"),
        ({"status": 404, "type": "not_found_error"}, "--autoresearch-model"),
        ({"status": 400, "type": "invalid_request_error"}, "was refused"),
        ({"status": 413, "type": "request_too_large"}, "was refused"),
        ({"status": 429, "headers": {"retry-after": "3600"}}, "asks to wait 3600 s"),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else "",
)
def test_final_fault_is_not_retried(serve: Serve, fault: dict, message: str) -> None:
    wire, proposer = serve(fault)
    with pytest.raises(ProposerUnavailable, match=message):
        proposer.propose(context())
    assert len(wire.requests) == 1


def test_unreachable_server_costs_nothing(serve: Serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    policy = RetryPolicy(deadline_s=20.0, attempt_s=20.0, silence_s=20.0, pause_s=60.0)
    wire, proposer = serve({"text": GOOD}, retry_policy=policy, cost_budget=cost_budget)
    proposer.check()
    wire.close()
    with pytest.raises(ProposerUnavailable, match="APIConnectionError"):
        proposer.propose(context())
    assert cost_budget.spent() == 0


REFUSED = {
    "text": "", "stop_reason": "refusal",
    "stop_details": {"type": "refusal", "category": "frontier_llm", "explanation": "x"},
}  # fmt: skip


@pytest.mark.parametrize(
    ("provider", "step", "reason"),
    [
        (ANTHROPIC, REFUSED, "frontier_llm"),
        (OPENAI, {"refusal": "I cannot help with that."}, "I cannot help"),
        (OPENAI, {"finish_reason": "content_filter"}, "content filter"),
    ],
    indirect=["provider"],
)
def test_refusal_is_not_resent_and_the_third_is_the_last(
    serve: Serve, step: dict, reason: str
) -> None:
    wire, proposer = serve(step)
    for number in range(1, REFUSALS + 1):
        with pytest.raises(ProposalRefused, match=reason) as caught:
            proposer.propose(context())
        assert caught.value.usage.requests == 1
        assert len(wire.requests) == number
    with pytest.raises(ProposerExhausted, match=f"declined {REFUSALS} times"):
        proposer.propose(context())
    assert len(wire.requests) == REFUSALS


@pytest.mark.parametrize(
    ("provider", "reason"),
    [
        (ANTHROPIC, "max_tokens"),
        (ANTHROPIC, "pause_turn"),
        (ANTHROPIC, "model_context_window_exceeded"),
        (OPENAI, "length"),
        (OPENAI, "tool_calls"),
    ],
    indirect=["provider"],
)
def test_unfinished_answer_is_invalid(serve: Serve, provider: Provider, reason: str) -> None:
    _, proposer = serve({"text": GOOD, provider.finish: reason})
    with pytest.raises(ProposalInvalid, match=reason) as caught:
        proposer.propose(context())
    assert caught.value.usage.output_tokens == 400


def test_repair_resends_the_conversation_verbatim(serve: Serve, provider: Provider) -> None:
    wire, proposer = serve({"text": BAD}, {"text": GOOD})
    proposal = proposer.propose(context())
    assert proposal.meta["repairs"] == 1
    assert (proposal.usage.requests, proposal.usage.output_tokens) == (2, 800)
    first, second = (body["messages"] for body in wire.requests)
    assert second[: provider.turns] == first
    assert second[provider.turns] == {"role": "assistant", "content": BAD}
    assert "LR = 0.02" in second[provider.turns + 1]["content"]


@pytest.mark.parametrize(
    "text",
    [BAD, "I would rather not.", GOOD.replace("LR = 0.03", "LR = ("), GOOD.replace("0.03", "0.02")],
)
def test_answer_is_invalid_after_two_repairs_and_its_cost_is_known(serve: Serve, text: str) -> None:
    wire, proposer = serve({"text": text})
    with pytest.raises(ProposalInvalid, match="after 2 repairs") as caught:
        proposer.propose(context())
    assert len(wire.requests) == 3
    assert caught.value.usage.requests == 3


@pytest.mark.parametrize(
    ("provider", "server", "message"),
    [
        (ANTHROPIC, {"status": 404, "type": "not_found_error"}, "--autoresearch-model"),
        (ANTHROPIC, {"lifecycle": "retired"}, "is retired"),
        (OPENAI, {"names": ["other"]}, "no model 'gpt-5.5'; it has other"),
        (OPENAI, {"body": {"hello": "world"}}, "OPENAI_BASE_URL usually ends with /v1"),
        (OPENAI, {"status": 401}, "check the key"),
    ],
    indirect=["provider"],
)
def test_model_is_looked_up_before_the_first_request(
    serve: Serve, server: dict, message: str
) -> None:
    wire, proposer = serve({"text": GOOD}, server=server)
    with pytest.raises(ProposerUnavailable, match=message):
        proposer.check()
    with pytest.raises(ProposerUnavailable, match=message):
        proposer.propose(context())
    assert wire.requests == []


def test_check_only_warns_of_an_unreachable_server(serve: Serve) -> None:
    wire, proposer = serve({"text": GOOD})
    assert proposer.check() == ""
    wire.close()
    proposer.retry_policy = RetryPolicy(pause_s=60.0)
    assert "it is asked again when its turn comes" in proposer.check()


@pytest.mark.parametrize(
    ("provider", "message"),
    [(ANTHROPIC, "no usable credentials"), (OPENAI, "OPENAI_API_KEY")],
    indirect=["provider"],
)
def test_missing_credentials_are_named_and_nothing_is_sent(
    serve: Serve, monkeypatch, tmp_path, message: str
) -> None:
    wire, proposer = serve({"text": GOOD})
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN", "OPENAI_API_KEY", "OPENAI_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProposerUnavailable, match=message):
        proposer.propose(context())
    assert wire.headers == []


# ---------------------------------------------------------------------- money


def test_money_is_reserved_settled_and_capped(serve: Serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    wire, proposer = serve({"text": GOOD}, cost_budget=cost_budget)
    cost = proposer.propose(context()).usage.cost_usd
    assert cost_budget.spent() == pytest.approx(cost)
    assert cost > 0
    proposer.cost_budget = CostBudget(tmp_path / "other.sqlite", cap=0.02)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.02"):
        proposer.propose(context())
    assert len(wire.requests) == 1


@pytest.mark.parametrize(
    "step",
    [{"status": 401}, {"status": 529, "headers": {"retry-after": "3600"}}],
    ids=["final", "overloaded"],
)
def test_error_response_costs_nothing(serve: Serve, tmp_path, step: dict) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    wire, proposer = serve({"text": GOOD}, step, cost_budget=cost_budget)
    proposer.propose(context())
    before = cost_budget.spent()
    with pytest.raises(ProposerUnavailable):
        proposer.propose(context())
    assert len(wire.requests) == 2
    assert cost_budget.spent() == before


@pytest.mark.parametrize(
    ("fault", "costs"), [({"fault": "truncated"}, True), ({"status": 503}, False)]
)
def test_broken_try_is_charged_to_the_attempt(
    serve: Serve, tmp_path, fault: dict, costs: bool
) -> None:
    alone = serve({"text": GOOD})[1].propose(context()).usage.cost_usd
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    _, proposer = serve(fault, {"text": GOOD}, cost_budget=cost_budget)
    usage = proposer.propose(context()).usage
    assert usage.cost_usd == pytest.approx(cost_budget.spent())
    assert (cost_budget.spent() > alone + 0.001) == costs
    assert usage.output_tokens == 400


def test_model_without_a_price_needs_the_users_price_under_a_cap(serve: Serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    wire, proposer = serve({"text": GOOD}, model="local", cost_budget=cost_budget)
    for ask in (proposer.check, lambda: proposer.propose(context())):
        with pytest.raises(ProposerUnavailable, match=r"'local'.*--autoresearch-price IN/OUT"):
            ask()
    assert wire.requests == []
    proposer.rates = (0.5, 2.0)
    assert proposer.check() == ""
    usage = proposer.propose(context()).usage
    prompt = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    assert usage.cost_usd == pytest.approx((prompt * 0.5 + 400 * 2.0) / 1e6)
    assert usage.cost_usd == cost_budget.spent()
    proposer.cost_budget = replace(cost_budget, cap=usage.cost_usd + 0.001)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.0"):
        proposer.propose(context())
    assert len(wire.requests) == 1
    proposer.rates, proposer.cost_budget = None, replace(cost_budget, cap=None)
    assert proposer.check() == ""
    assert proposer.propose(context()).usage.cost_usd is None


def test_reservation_of_another_worker_is_waited_for(serve: Serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=2.0)
    wire, proposer = serve({"text": GOOD}, cost_budget=cost_budget)
    held = cost_budget.reserve("m", 1.99)
    with pytest.raises(ProposerUnavailable, match=r"of \$2\.00.*not charged"):
        replace(proposer, retry_policy=replace(QUICK, deadline_s=0.5)).propose(context())
    assert wire.requests == []
    threading.Timer(0.5, cost_budget.settle, (held, 0.01)).start()
    assert proposer.propose(context()).title == "raise the rate"
