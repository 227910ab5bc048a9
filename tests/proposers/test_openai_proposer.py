"""Chat completions over the real SDK and a loopback server: behaviour of this API alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from support.anthropic import GOOD, SOURCE, context
from support.providers import OPENAI
from support.wire.server import Wire

from pytest_autoresearch.core.proposal import ProposalInvalid, ProposerUnavailable
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.proposers.llm.forecast import forecast
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


LOCAL = {"id": "local", "object": "model", "created": 0, "owned_by": "me"}


@pytest.mark.parametrize(
    ("model", "server", "fields"),
    [
        ({"max_model_len": 16384}, {}, {}),
        ({"meta": {"n_ctx": 16384, "n_ctx_train": 131072}}, {}, {}),
        (
            {"owned_by": "llamacpp", "meta": {"n_ctx_train": 131072}},
            {"props": {"default_generation_settings": {"n_ctx": 16384}}},
            {},
        ),
        ({}, {}, {"context": 16384}),
        ({"max_model_len": 131072}, {}, {"context": 16384}),
    ],
    ids=["vllm", "meta", "llama.cpp", "option", "option first"],
)
def test_small_window_is_shared_between_prompt_and_answer(serve, model, server, fields) -> None:
    listed = {"body": {"object": "list", "data": [LOCAL | model]}}
    wire, chat = serve({"text": GOOD}, server=listed | server, model="local", **fields)
    long = replace(context(), literature="word\n" * 8_000)
    assert chat.propose(long).title == "raise the rate"
    assert wire.requests[0]["max_completion_tokens"] == 8192
    assert "word" not in wire.requests[0]["messages"][1]["content"]


SMALL = "the request exceeds the available context size ({} tokens), try increasing it"


@pytest.mark.parametrize(
    "said",
    [
        {"error": {"code": 400, "message": "too long", "n_prompt_tokens": 29000, "n_ctx": 4096}},
        {"error": {"code": 400, "message": SMALL.format(4096)}},
        {"message": "This model's maximum context length is 4096 tokens. However, you requested"},
    ],
)
def test_prompt_is_composed_for_the_window_that_an_error_names(serve, said: dict) -> None:
    wire, chat = serve({"status": 400, "said": said}, {"text": GOOD}, model="local")
    long = replace(context(), literature="word\n" * 8_000)
    assert chat.propose(long).title == "raise the rate"
    assert chat.propose(long).usage.requests == 1
    assert ["word" in str(body["messages"]) for body in wire.requests] == [True, False, False]
    assert [body["max_completion_tokens"] for body in wire.requests] == [32000, 2048, 2048]


def test_window_that_stays_too_small_names_the_option(serve) -> None:
    wire, chat = serve({"status": 400, "message": SMALL.format(4096)}, model="local")
    with pytest.raises(ProposerUnavailable, match=r"too long \(400\).*--autoresearch-context"):
        chat.propose(context())
    assert len(wire.requests) == 2


def test_files_that_do_not_fit_the_window_are_never_sent(serve) -> None:
    wire, chat = serve({"text": GOOD}, model="local", context=1000)
    with pytest.raises(ProposerUnavailable, match=r"window of local has 1,000.*-context"):
        chat.propose(replace(context(), program="lower it " * 1000))
    chat.check()
    with pytest.raises(ProposerUnavailable, match="window of local has 1,000"):
        forecast(chat, replace(context(), program="lower it " * 1000), 10)
    assert wire.requests == []


@pytest.mark.parametrize("finish", ["eos", "eos_token", "end", "end_turn", "STOP", "COMPLETE"])
def test_answer_that_ended_by_itself_is_complete(serve, finish: str) -> None:
    _, chat = serve({"text": GOOD, "finish_reason": finish})
    assert chat.propose(context()).title == "raise the rate"


@pytest.mark.parametrize("finish", ["model_length", "MAX_TOKENS", "function_call", "SAFETY"])
def test_answer_that_was_cut_off_is_invalid(serve, finish: str) -> None:
    _, chat = serve({"text": GOOD, "finish_reason": finish})
    with pytest.raises(ProposalInvalid, match=finish):
        chat.propose(context())


def test_answer_that_the_server_broke_off_is_requested_again(serve) -> None:
    wire, chat = serve({"text": GOOD, "finish_reason": "error"}, {"text": GOOD})
    assert chat.propose(context()).title == "raise the rate"
    assert len(wire.requests) == 2


@pytest.mark.parametrize("code", [400, 422])
def test_fields_that_a_server_refuses_are_left_out_for_the_session(serve, code: int) -> None:
    refuse = ["max_completion_tokens", "stream_options"]
    wire, chat = serve({"text": GOOD, "refuse": refuse, "code": code})
    for _ in range(2):
        assert chat.propose(context()).title == "raise the rate"
    assert [sorted(set(body) - {"model", "messages", "stream"}) for body in wire.requests] == [
        ["max_completion_tokens", "stream_options"],
        ["max_tokens", "stream_options"],
        ["max_tokens"],
        ["max_tokens"],
    ]
    assert wire.requests[-1]["max_tokens"] == 32000


def test_server_without_any_limit_of_tokens_is_used(serve) -> None:
    refuse = ["max_completion_tokens", "max_tokens"]
    wire, chat = serve({"text": GOOD, "refuse": refuse})
    assert chat.propose(context()).title == "raise the rate"
    assert "stream_options" in wire.requests[-1]


def test_a_field_that_the_user_asked_for_is_not_left_out(serve) -> None:
    wire, chat = serve({"text": GOOD, "refuse": ["reasoning_effort"]}, effort="low")
    with pytest.raises(ProposerUnavailable, match=r"refused \(422\).*reasoning_effort"):
        chat.propose(context())
    assert len(wire.requests) == 1


THOUGHT = {"type": "thinking", "thinking": [{"type": "text", "text": "Title: no"}]}


@pytest.mark.parametrize(
    "deltas",
    [
        [{"content": [THOUGHT]}],
        [{"content": [THOUGHT, {"type": "text", "text": "Idea: wider\n"}]}],
        [{"reasoning_content": "Title: no\n"}, {"content": None}],
        [{"content": "<think>\nTitle: no\n</think>\n"}],
    ],
)
def test_thoughts_in_any_form_are_no_answer(serve, deltas: list[dict]) -> None:
    wire, chat = serve({"text": GOOD, "deltas": deltas})
    proposal = chat.propose(context())
    assert (proposal.title, len(proposal.edits)) == ("raise the rate", 1)
    assert proposal.meta.get("ideas", []) == ["wider"] * ("wider" in str(deltas))
    assert len(wire.requests) == 1


def test_answer_that_we_cannot_read_is_not_requested_again(serve, tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite")
    wire, chat = serve({"text": GOOD, "deltas": [{"refusal": 5}]}, cost_budget=cost_budget)
    with pytest.raises(ProposerUnavailable, match=r"TypeError.*openai.py.*please report"):
        chat.propose(context())
    assert len(wire.requests) == 1


def test_whole_files_are_asked_for_and_read(serve) -> None:
    whole = f"Title: raise it\n\ntrain.py\n```python\n{SOURCE.replace('0.02', '0.03')}```\n"
    wire, chat = serve({"text": GOOD.partition("<<<")[0]}, {"text": whole}, answer="whole")
    proposal = chat.propose(context())
    [edit] = proposal.edits
    assert (edit.search, edit.replace) == ("LR = 0.02\n", "LR = 0.03\n")
    first, second = (str(body["messages"]) for body in wire.requests)
    assert "the whole new file" in first
    assert "<<<<<<< SEARCH" not in first
    assert "all files" in second
