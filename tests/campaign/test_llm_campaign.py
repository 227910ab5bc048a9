"""Campaigns with a language model over a loopback server with faults."""

from __future__ import annotations

import pytest
from support.llm_campaign import ANSWER, idea, run_session
from support.project import Project

from pytest_autoresearch.ledger.spend import CostBudget

BROKEN = 0.0103 + 7 * 10e-6
"""Of one that broke off: its prompt, and an upper estimate of the 18 letters that had come."""


def test_proposals_repairs_refusals_and_overloads_in_one_session(project: Project, wire) -> None:
    busy = {"status": 529, "type": "overloaded_error", "headers": {"retry-after": "0.1"}}
    server = wire(
        {"text": idea(0.9)},
        {"text": idea(0.8).replace("# ideas go here\n===", "# ideas went there\n===")},
        {"text": idea(0.8)},
        {"text": "", "stop_reason": "refusal",
         "stop_details": {"type": "refusal", "category": "frontier_llm", "explanation": ""}},
        busy, busy,
        {"text": idea(1.5)},
        {"fault": "truncated"},
        {"text": idea(0.9)},
        {"text": "I have no idea."},
        {"text": "None at all."},
        {"text": "Sorry."},
        {"text": idea(0.7)},
    )  # fmt: skip
    result = run_session(
        project, "--iterations=7", "--junitxml=log.xml", "--autoresearch-max-cost=5usd"
    )
    assert result.ret == 0
    verdicts = project.verdicts()
    assert verdicts == ["keep", "keep", "invalid", "discard", "discard", "invalid", "keep"]
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert "declined: claude-sonnet-5-5: frontier_llm" in attempts[2].reason
    assert [s.usage.requests for s in attempts] == [1, 2, 1, 1, 1, 3, 1]
    spent = CostBudget(project.ledger().path).spent()
    assert spent == pytest.approx(10 * ANSWER + BROKEN)
    assert spent == pytest.approx(sum(s.usage.cost_usd for s in attempts))
    result.stdout.fnmatch_lines(
        [
            "proposers:  anthropic 3 of 7 kept, gain +0.3*, $0.15",
            f"*spent on proposals: ${10 * ANSWER + BROKEN:.4f}*",
        ]
    )
    assert len(server.requests) == 13


def lowered(score: float, now: float = 1.0) -> str:
    return (
        f"Title: to {score}\nHypothesis: it is lower\n\ntrain.py\n<<<<<<< SEARCH\n"
        f"SCORE = {now}\n=======\nSCORE = {score}\n>>>>>>> REPLACE\n"
    )


def test_draft_that_fits_no_more_is_sent_back_once_and_paid_for(project: Project, wire) -> None:
    server = wire({"text": lowered(0.9)}, {"text": lowered(0.8)}, {"text": lowered(0.7, now=0.9)})
    assert run_session(project, "--iterations=2").ret == 0
    first, second = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert (first.verdict, second.verdict, second.title) == ("keep", "keep", "to 0.7")
    assert second.parent == first.id
    _, draft, response = server.requests[2]["messages"]
    assert draft == {"role": "assistant", "content": lowered(0.8)}
    assert "SCORE = 0.9" in response["content"]
    assert len(server.requests) == 3
    assert [s.usage.requests for s in (first, second)] == [1, 2]
    assert second.usage.cost_usd == pytest.approx(2 * ANSWER)
    assert CostBudget(project.ledger().path).spent() == pytest.approx(3 * ANSWER)


@pytest.mark.slow
def test_unavailable_provider_ends_the_session_without_a_verdict(project: Project, wire) -> None:
    wire({"status": 401, "type": "authentication_error", "message": "invalid x-api-key"})
    result = run_session(project, "--iterations=5", "--autoresearch-max-failures=2")
    assert result.ret == 1
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [(s.state, s.verdict) for s in attempts] == [("infra", None)] * 2
    result.stdout.fnmatch_lines(["*stopped: 2 attempts in a row failed*"])


@pytest.mark.slow
def test_cost_limit_ends_the_session_with_exit_code_0(project: Project, wire) -> None:
    wire({"text": idea(0.9)})
    result = run_session(project, "--iterations=5", "--autoresearch-max-cost=0.01usd")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*stopped: $0.00 of $0.01 are spent*--autoresearch-max-cost*"])


@pytest.mark.slow
def test_every_kth_attempt_goes_to_the_search_proposer(project: Project, wire) -> None:
    wire(*({"text": idea(1 + n / 10)} for n in range(1, 5)))
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-control=2", "--iterations=2", "-p", "no:cacheprovider",
        "--autoresearch-model=claude-sonnet-5-5", "--autoresearch-confirm=0", timeout=300,
    )  # fmt: skip
    assert result.ret == 0
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [s.proposer for s in attempts] == ["anthropic", "gp"]


def slowly(text: str) -> str:
    """An idea that trains long enough for the next one to be drafted meanwhile."""
    first, rest = text.split("train.py\n")
    slow = "<<<<<<< SEARCH\nSLEEP = 0.0\n=======\nSLEEP = 3.0\n>>>>>>> REPLACE\n"
    return f"{first}train.py\n{slow}{rest}"


def paid_by_attempts(project: Project) -> float:
    return sum(s.usage.cost_usd or 0.0 for s in project.ledger().attempts())


def test_draft_left_by_a_session_is_used_by_the_next_and_charged_once(
    project: Project, wire
) -> None:
    server = wire({"text": slowly(idea(0.9))}, {"text": idea(0.8)})
    assert run_session(project, "--iterations=3", "--autoresearch-target=0.95").ret == 0
    assert project.verdicts() == ["keep"]
    assert paid_by_attempts(project) == pytest.approx(2 * ANSWER)
    assert run_session(project, "--iterations=1").ret == 0
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [s.title for s in attempts] == ["score 0.9", "score 0.8"]
    assert [s.usage.cost_usd for s in attempts] == pytest.approx([ANSWER, ANSWER])
    assert len(server.requests) == 2


def test_failed_calls_are_charged_to_the_attempt(project: Project, wire) -> None:
    unusable = idea(0.8).replace("# ideas go here\n===", "# ideas went there\n===")
    down = {"status": 401, "type": "authentication_error"}
    wire({"text": slowly(idea(0.9))}, down, {"text": unusable}, down)
    result = run_session(project, "--iterations=2", "--autoresearch-max-failures=1")
    assert result.ret == 1
    keep, infra = (s for s in project.ledger().attempts() if s.kind == "mutation")
    assert (keep.verdict, infra.state) == ("keep", "infra")
    assert [s.usage.cost_usd for s in (keep, infra)] == pytest.approx([ANSWER, ANSWER])
    assert CostBudget(project.ledger().path).spent() == pytest.approx(2 * ANSWER)


def test_call_interrupted_by_the_end_of_a_session_is_charged_to_its_last_attempt(
    project: Project, wire
) -> None:
    wire({"text": slowly(idea(0.9))}, {"fault": "stall"})
    assert run_session(project, "--iterations=3", "--autoresearch-target=0.95").ret == 0
    spent = CostBudget(project.ledger().path).spent()
    assert spent > 2 * ANSWER  # nobody knows how far it got
    assert paid_by_attempts(project) == pytest.approx(spent)


def test_cost_limit_with_an_unpriced_model_is_a_usage_error(project: Project, wire) -> None:
    server = wire({"text": idea(0.9)})
    unknown = ("--autoresearch-model=a-gateways-own", "--autoresearch-max-cost=5usd")
    result = run_session(project, "--iterations=1", *unknown)
    assert result.ret == 4
    result.stderr.fnmatch_lines(["*the price of 'a-gateways-own'*--autoresearch-price IN/OUT*"])
    assert server.requests == []
    result = run_session(project, "--iterations=1", *unknown, "--autoresearch-price=2/10")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*proposals: 1 attempts, about *(a-gateways-own, your price; *"])
    assert CostBudget(project.ledger().path).spent() == pytest.approx((6000 * 2 + 400 * 10) / 1e6)
