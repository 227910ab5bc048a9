"""Claude over the real SDK and a real loopback server: every way an answer can go wrong."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.anthropic import BAD, GOOD, MODEL, QUICK, context
from support.wire.server import USAGE, Wire

from pytest_autoresearch.core.money import price
from pytest_autoresearch.core.proposal import (
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.llm.anthropic import AnthropicProposer
from pytest_autoresearch.proposers.llm.calls import RetryPolicy
from pytest_autoresearch.proposers.llm.provider import REFUSALS

BUSY = {"status": 529, "type": "overloaded_error", "headers": {"retry-after": "3600"}}


@pytest.fixture
def serve(
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Callable[..., tuple[Wire, AnthropicProposer]]]:
    wires: list[Wire] = []

    def start(*script: dict, model: dict | None = None, **fields) -> tuple[Wire, AnthropicProposer]:
        wire = Wire(list(script), model)
        wires.append(wire)
        monkeypatch.setenv("ANTHROPIC_BASE_URL", wire.url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "not a key")
        return wire, AnthropicProposer(
            model=MODEL, retry_policy=fields.pop("retry_policy", QUICK), **fields
        )

    yield start
    for wire in wires:
        wire.close()


def test_an_answer_becomes_a_proposal_with_its_price(serve) -> None:
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
def test_a_prompt_that_may_be_too_long_is_counted_by_the_provider(
    serve, per_byte: float | None, dropped: bool
) -> None:
    wire, claude = serve({"text": GOOD})
    wire.tokens_per_byte = per_byte
    notes = "a note on optimisers " * 500
    claude.propose(replace(context(), literature=notes))
    assert wire.counted == []  # short enough by the upper estimate
    long = replace(context(), literature=notes, program="# lower it\n" + "brief " * 32_000)
    claude.propose(long)
    [counted] = wire.counted
    assert set(counted) == {"model", "system", "messages"}
    assert "a note on optimisers" in json.dumps(counted)
    assert ("a note on optimisers" not in json.dumps(wire.requests[-1])) == dropped


def test_what_is_sent_can_be_cached_for_an_hour_and_holds_no_dropped_parameters(serve) -> None:
    wire, claude = serve({"text": GOOD}, effort="low")
    claude.propose(context())
    [body] = wire.requests
    assert body["system"][-1]["cache_control"] == {"type": "ephemeral", "ttl": "1h"}
    assert body["messages"][0]["content"][0]["cache_control"]["ttl"] == "1h"
    assert body["output_config"] == {"effort": "low"}
    assert body["max_tokens"] == 8000
    assert not {"temperature", "tools", "tool_choice"} & set(body)


@pytest.mark.parametrize(
    "trouble",
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
def test_a_passing_fault_is_tried_again(serve, trouble: dict) -> None:
    wire, claude = serve(trouble, {"text": GOOD})
    proposal = claude.propose(context())
    assert proposal.title == "raise the rate"
    assert len(wire.requests) == 2
    assert proposal.usage.requests == 1


@pytest.mark.parametrize(
    ("trouble", "said"),
    [
        ({"status": 401, "type": "authentication_error"}, "check the key"),
        ({"status": 403, "type": "permission_error"}, "check the key"),
        ({"status": 402, "type": "billing_error"}, "cannot pay"),
        ({"status": 404, "type": "not_found_error"}, "--autoresearch-model"),
        ({"status": 400, "type": "invalid_request_error"}, "was refused"),
        ({"status": 413, "type": "request_too_large"}, "was refused"),
    ],
    ids=lambda value: str(value.get("status")) if isinstance(value, dict) else "",
)
def test_a_lasting_fault_is_the_providers_and_is_asked_once(
    serve, trouble: dict, said: str
) -> None:
    wire, claude = serve(trouble)
    with pytest.raises(ProposerUnavailable, match=said):
        claude.propose(context())
    assert len(wire.requests) == 1


def test_a_storm_ends_at_the_deadline(serve) -> None:
    retry_policy = RetryPolicy(deadline_s=1.0, attempt_s=1.0, silence_s=1.0, pause_s=0.05)
    wire, claude = serve({"status": 529, "type": "overloaded_error"}, retry_policy=retry_policy)
    with pytest.raises(ProposerUnavailable, match="the attempt is not charged"):
        claude.propose(context())
    assert len(wire.requests) > 2


def test_a_request_to_wait_an_hour_is_not_slept_through(serve) -> None:
    wire, claude = serve({"status": 429, "headers": {"retry-after": "3600"}})
    began = time.monotonic()
    with pytest.raises(ProposerUnavailable, match="asks to wait 3600 s"):
        claude.propose(context())
    assert time.monotonic() - began < 60
    assert len(wire.requests) == 1


def test_a_refusal_is_its_own_outcome_never_resent_and_ends_after_some(serve) -> None:
    refusal = {
        "text": "", "stop_reason": "refusal",
        "stop_details": {"type": "refusal", "category": "frontier_llm", "explanation": "x"},
    }  # fmt: skip
    wire, claude = serve(refusal)
    for asked in range(1, REFUSALS + 1):
        with pytest.raises(ProposalRefused, match="frontier_llm"):
            claude.propose(context())
        assert len(wire.requests) == asked
    with pytest.raises(ProposerExhausted, match=f"declined {REFUSALS} times"):
        claude.propose(context())
    assert len(wire.requests) == REFUSALS


@pytest.mark.parametrize("reason", ["max_tokens", "pause_turn", "model_context_window_exceeded"])
def test_an_answer_that_did_not_end_its_turn_is_no_proposal(serve, reason: str) -> None:
    _, claude = serve({"text": GOOD, "stop_reason": reason})
    with pytest.raises(ProposalInvalid, match=reason) as caught:
        claude.propose(context())
    assert caught.value.usage.output_tokens == 400


def test_edits_that_miss_are_mended_with_the_conversation_kept_verbatim(serve) -> None:
    wire, claude = serve({"text": BAD}, {"text": GOOD})
    proposal = claude.propose(context())
    assert proposal.meta["repairs"] == 1
    assert proposal.usage.requests == 2
    assert proposal.usage.output_tokens == 800
    assert proposal.usage.cost_usd == pytest.approx(2 * 0.0143)
    first, second = wire.requests
    assert second["messages"][:1] == first["messages"]
    assert second["messages"][1] == {"role": "assistant", "content": BAD}
    assert "LR = 0.02" in second["messages"][2]["content"]


@pytest.mark.parametrize(
    "text",
    [BAD, "I would rather not.", GOOD.replace("LR = 0.03", "LR = ("), GOOD.replace("0.03", "0.02")],
)
def test_after_two_repairs_it_is_invalid_and_its_cost_is_known(serve, text: str) -> None:
    wire, claude = serve({"text": text})
    with pytest.raises(ProposalInvalid, match="after 2 repairs") as caught:
        claude.propose(context())
    assert len(wire.requests) == 3
    assert caught.value.usage.requests == 3


@pytest.mark.parametrize(
    ("model", "said"),
    [
        ({"status": 404, "type": "not_found_error"}, "--autoresearch-model"),
        ({"lifecycle": "retired"}, "is retired"),
    ],
)
def test_the_model_is_looked_up_before_anything_is_asked(serve, model: dict, said: str) -> None:
    wire, claude = serve({"text": GOOD}, model=model)
    with pytest.raises(ProposerUnavailable, match=said):
        claude.propose(context())
    assert wire.requests == []


def test_a_client_of_ones_own_is_used(serve, tmp_path, monkeypatch) -> None:
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


def test_a_client_of_ones_own_does_not_retry_behind_our_back(serve, tmp_path, monkeypatch) -> None:
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
def test_a_spend_limit_is_not_waited_for(serve, code: str) -> None:
    wire, claude = serve({"status": 429, "details": {"error_code": code}})
    with pytest.raises(ProposerUnavailable, match="spend limit is reached"):
        claude.propose(context())
    assert len(wire.requests) == 1


def test_a_server_that_is_not_there_is_the_providers_fault_and_costs_nothing(
    serve, tmp_path
) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    retry_policy = RetryPolicy(deadline_s=20.0, attempt_s=20.0, silence_s=20.0, pause_s=60.0)
    wire, claude = serve({"text": GOOD}, retry_policy=retry_policy, cost_budget=cost_budget)
    claude.check()
    wire.close()
    with pytest.raises(ProposerUnavailable, match="APIConnectionError"):
        claude.propose(context())
    assert cost_budget.spent() == 0


def test_missing_credentials_are_named_and_nothing_is_sent(serve, monkeypatch, tmp_path) -> None:
    wire, claude = serve({"text": GOOD})
    monkeypatch.setenv("HOME", str(tmp_path))
    for name in ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ProposerUnavailable, match="no usable credentials"):
        claude.propose(context())
    assert wire.headers == []


@pytest.mark.filterwarnings("error")
def test_a_warning_made_an_error_is_not_tried_again(serve) -> None:
    wire, claude = serve({"text": GOOD})
    claude.model = "claude-sonnet-4-5"
    with pytest.raises(ProposerUnavailable, match=r"deprecated.*--autoresearch-model"):
        claude.propose(context())
    assert wire.requests == []


def test_it_may_be_asked_from_another_thread_while_a_loop_runs_here(serve) -> None:
    _, claude = serve({"text": GOOD})

    async def here() -> Proposal:
        return await asyncio.to_thread(claude.propose, context())

    assert asyncio.run(here()).title == "raise the rate"
    assert claude.propose(context()).title == "raise the rate"


# ---------------------------------------------------------------------- money


def test_money_is_set_aside_before_a_call_and_settled_after_it(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=1.0)
    _, claude = serve({"text": GOOD}, cost_budget=cost_budget)
    proposal = claude.propose(context())
    assert cost_budget.spent() == pytest.approx(proposal.usage.cost_usd)


def test_what_could_exceed_the_cap_is_not_asked(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=0.05)
    wire, claude = serve({"text": GOOD}, cost_budget=cost_budget)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.05"):
        claude.propose(context())
    assert wire.requests == []


@pytest.mark.parametrize("step", [{"status": 401}, BUSY], ids=["final", "storm"])
def test_what_was_answered_with_an_error_costs_nothing(serve, tmp_path, step: dict) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    wire, claude = serve({"text": GOOD}, step, cost_budget=cost_budget)
    claude.propose(context())
    before = cost_budget.spent()
    with pytest.raises(ProposerUnavailable):
        claude.propose(context())
    assert len(wire.requests) == 2
    assert cost_budget.spent() == before


def test_a_call_that_never_came_back_stays_spent(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    retry_policy = RetryPolicy(deadline_s=1.0, attempt_s=0.5, silence_s=0.3, pause_s=0.05)
    _, claude = serve(
        {"fault": "stall"}, {"status": 529}, cost_budget=cost_budget, retry_policy=retry_policy
    )
    with pytest.raises(ProposerUnavailable):
        claude.propose(context())
    assert cost_budget.spent() > 0.05


PROMPT = 0.0103
"""Dollars of the wire server's prompt at the model's list price, without an answer."""


@pytest.mark.parametrize(
    ("trouble", "least", "most"),
    [
        ({"status": 529}, 0, 0),
        ({"fault": "half"}, PROMPT, PROMPT + 0.0001),
        ({"fault": "truncated", "text": "x" * 3000}, PROMPT + 0.01, PROMPT + 0.0101),
        ({"fault": "sse_error"}, PROMPT, PROMPT + 0.0001),
        ({"fault": "drop"}, 0.001, 0.05),  # nothing was told: the whole prompt, estimated
        ({"fault": "html"}, 0.001, 0.05),
        ({"fault": "stall"}, 0.08, 0.1),  # given up by us: the longest answer there can be
        ({"fault": "pings"}, 0.08, 0.1),
    ],
    ids=lambda step: str(step.get("status", step.get("fault"))) if isinstance(step, dict) else "",
)
def test_a_try_that_broke_off_before_one_that_worked_is_paid_too(
    serve, tmp_path, trouble: dict, least: float, most: float
) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    _, claude = serve(trouble, {"text": GOOD}, cost_budget=cost_budget)
    usage = claude.propose(context()).usage
    assert least <= cost_budget.spent() - 0.0143 + 1e-9 <= most + 1e-6
    assert usage.cost_usd == pytest.approx(cost_budget.spent())
    assert usage.output_tokens == 400


def test_what_another_worker_has_set_aside_is_waited_for(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=0.2)
    wire, claude = serve({"text": GOOD}, cost_budget=cost_budget)
    held = cost_budget.reserve(MODEL, 0.19)
    with pytest.raises(ProposerUnavailable, match=r"of \$0\.20.*not charged"):
        replace(claude, retry_policy=replace(QUICK, deadline_s=0.5)).propose(context())
    assert wire.requests == []
    threading.Timer(0.5, cost_budget.settle, (held, 0.01)).start()
    assert claude.propose(context()).title == "raise the rate"


def test_broken_tries_end_at_the_cap(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=0.2)
    retry_policy = RetryPolicy(deadline_s=30.0, attempt_s=5.0, silence_s=5.0, pause_s=0.001)
    wire, claude = serve({"fault": "truncated"}, cost_budget=cost_budget, retry_policy=retry_policy)
    with pytest.raises(ProposerExhausted, match=r"of \$0\.20"):
        claude.propose(context())
    assert cost_budget.spent() <= 0.2
    assert len(wire.requests) > 3


def test_a_model_that_cannot_be_had_is_known_before_anything_is_spent(serve) -> None:
    _, claude = serve({"text": GOOD}, model={"status": 404, "type": "not_found_error"})
    with pytest.raises(ProposerUnavailable, match="--autoresearch-model"):
        claude.check()
    wire, claude = serve({"text": GOOD})
    assert claude.check() == ""
    wire.close()
    claude.retry_policy = RetryPolicy(pause_s=60.0)
    assert "it is asked again when its turn comes" in claude.check()


def test_a_model_that_is_about_to_go_is_said_to_be(serve) -> None:
    assert serve({"text": GOOD}, model={"lifecycle": "deprecated"})[1].check() == (
        f"{MODEL} is deprecated: it will be retired"
    )
    assert serve({"text": GOOD})[1].check() == ""


def test_without_a_cap_a_model_needs_no_price_and_with_one_it_does(serve, tmp_path) -> None:
    wire, claude = serve({"text": GOOD}, cost_budget=CostBudget(tmp_path / "ledger.sqlite"))
    claude.model = "claude-of-a-gateway"
    assert claude.propose(context()).usage.cost_usd is None
    claude.cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=5.0)
    with pytest.raises(ProposerUnavailable, match=r"claude-of-a-gateway.*--autoresearch-max-cost"):
        claude.propose(context())
    assert len(wire.requests) == 1


def test_the_script_of_the_server_is_priced_as_documented() -> None:
    usage = Usage(
        MODEL, USAGE["input_tokens"], USAGE["cache_read_input_tokens"],
        USAGE["cache_creation_input_tokens"], USAGE["output_tokens"],
    )  # fmt: skip
    assert price("anthropic", usage) == pytest.approx(0.0143)
