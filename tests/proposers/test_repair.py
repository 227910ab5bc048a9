"""Repair of answers: at most two rounds, the nearest real lines shown, nothing misapplied or lost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.anthropic import BAD, GOOD, SOURCE, context

from pytest_autoresearch.core.proposal import (
    EditError,
    ProposalInvalid,
    ProposalRefused,
    ProposerUnavailable,
    Usage,
)
from pytest_autoresearch.proposers.llm.repair import REPAIRS, Reply, Turn, converse
from pytest_autoresearch.source.blocks import parse
from pytest_autoresearch.source.checks import apply_checked

COST = Usage("m", output_tokens=10, requests=1, cost_usd=0.25)


def reader(*answers: str | Exception):
    """Return a provider that gives these answers in turn, and the turns it gets each time."""
    requests: list[list[Turn]] = []

    def ask(turns: Sequence[Turn]) -> Reply:
        requests.append(list(turns))
        answer = answers[min(len(requests), len(answers)) - 1]
        if isinstance(answer, Exception):
            raise answer
        return Reply(answer, COST)

    return ask, requests


def test_valid_answer_needs_no_repair() -> None:
    ask, requests = reader(GOOD)
    proposal = converse(ask, context(), "x")
    assert (proposal.title, proposal.proposer, proposal.meta) == (
        "raise the rate",
        "x",
        {"repairs": 0},
    )
    assert requests == [[]]


def test_failing_block_is_sent_back_with_the_nearest_lines() -> None:
    ask, requests = reader(BAD, GOOD)
    assert converse(ask, context(), "x").usage.cost_usd == 0.5
    [(answer, response)] = requests[1]
    assert answer == BAD
    assert "edit 1 of train.py" in response
    assert "LR = 0.02\nDEPTH = 2" in response.replace("  ", "")
    assert "all blocks" in response


@pytest.mark.parametrize(
    "value",
    ["-" * 200_000 + "1", "+".join(["1"] * 100_000), "a" + ".b" * 100_000, "2\0", "("],
)
def test_unparsable_edit_is_sent_back(value: str) -> None:
    ask, requests = reader(GOOD.replace("LR = 0.03", f"LR = {value}"), GOOD)
    assert converse(ask, context(), "x").title == "raise the rate"
    [(answer, response)] = requests[1]
    assert "does not compile: " in response
    assert "None" not in response
    answer.encode()


def test_split_surrogates_are_joined() -> None:
    title = "raise \ud83d\ude00 the \x1b[31mrate"
    ask, requests = reader(GOOD.replace("raise the rate", title))
    assert converse(ask, context(), "x").title == "raise \U0001f600 the rate"
    assert len(requests) == 1


def test_stale_draft_is_the_first_turn() -> None:
    draft = converse(reader(GOOD)[0], context(), "x")
    ask, requests = reader(BAD, GOOD)
    again = converse(ask, replace(context(), stale=(draft, "LR = 0.05 is gone")), "x")
    assert again.title == "raise the rate"
    (answer, response), (bad, _) = requests[1]
    assert (parse(answer, context().files).edits, bad) == (draft.edits, BAD)
    assert "LR = 0.05 is gone" in response
    assert requests[0] == requests[1][:1]


def test_conversation_grows_and_ends_after_two_repairs() -> None:
    ask, requests = reader(BAD)
    with pytest.raises(ProposalInvalid, match=f"after {REPAIRS} repairs") as caught:
        converse(ask, context(), "x")
    assert [len(turns) for turns in requests] == [0, 1, 2]
    assert requests[2][:1] == requests[1]
    assert caught.value.title == "raise the rate"
    assert caught.value.usage == Usage("m", output_tokens=30, requests=3, cost_usd=0.75)


@pytest.mark.parametrize(
    ("answer", "complaint"),
    [
        ("", "no SEARCH/REPLACE block"),
        (GOOD.replace(">>>>>>> REPLACE", ""), "not closed"),
        (GOOD.replace("train.py\n", "prepare.py\n"), "may not be changed"),
        (GOOD.replace("LR = 0.03", "LR = ("), "line 2 does not compile"),
        (GOOD.replace("0.03", "0.02  # tuned"), "change nothing that runs"),
    ],
)
def test_response_names_the_fault(answer: str, complaint: str) -> None:
    ask, requests = reader(answer, GOOD)
    assert converse(ask, context(), "x").meta["repairs"] == 1
    assert complaint in requests[1][0][1]


@pytest.mark.parametrize("error", [ProposalRefused("no"), ProposalInvalid("cut short")])
def test_error_carries_the_cost_of_earlier_turns(error) -> None:
    error.usage = COST
    ask, _ = reader(BAD, error)
    with pytest.raises(type(error)) as caught:
        converse(ask, context(), "x")
    assert caught.value.usage.cost_usd == 0.5


def test_provider_fault_in_a_repair_is_unavailable() -> None:
    ask, _ = reader(BAD, ProposerUnavailable("529"))
    with pytest.raises(ProposerUnavailable):
        converse(ask, context(), "x")


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_corrupted_answer_changes_no_other_place(data) -> None:
    at = data.draw(st.integers(0, len(GOOD) - 1))
    cut = data.draw(st.integers(0, 12))
    text = GOOD[:at] + data.draw(st.text("LR=0.2DEPTH \n<>", max_size=6)) + GOOD[at + cut :]
    try:
        parsed = parse(text, {"train.py": SOURCE})
        changed = apply_checked({"train.py": SOURCE}, parsed.edits)["train.py"]
    except EditError:
        return
    assert changed.endswith("\n\n\ndef train():\n    return LR * DEPTH\n")
