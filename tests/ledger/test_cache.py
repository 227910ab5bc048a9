"""Every row of a ledger is decoded once, whatever is asked and however often."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.core.proposal import Edit, Proposal, Usage
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger import cache
from pytest_autoresearch.ledger.store import Ledger

ROWS = 1000


def add(ledger: Ledger, session: int, number: int) -> int:
    attempt = ledger.start_attempt(
        session_id=session, worker="main", name=f"mutation-{number:04d}", kind="mutation",
        number=number,
    ).id  # fmt: skip
    ledger.save_proposal(attempt, Proposal("t", (Edit("a", "b", "c"),)), None)
    run = ledger.start_run(
        attempt, seed=1, purpose="first", device="cpu", concurrency=1, budget="1s"
    )
    ledger.finish_run(run, Run("ok", score=1.0))
    ledger.finish_attempt(attempt, verdict="discard", score=1.0, n=1)
    return attempt


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Count the rows that are decoded."""
    counts = {"attempts": 0, "runs": 0}

    def counting(name, decode):
        def decoded(row):
            counts[name] += 1
            return decode(row)

        return decoded

    monkeypatch.setattr(cache, "attempt_of", counting("attempts", cache.attempt_of))
    monkeypatch.setattr(cache, "run_of", counting("runs", cache.run_of))
    return counts


def test_an_attempt_at_a_thousand_rows_costs_as_much_as_the_first(
    tmp_path: Path, counted: dict[str, int]
) -> None:
    ledger = Ledger.open(tmp_path, "t")
    session = ledger.begin_session(driver="d")
    statements: list[str] = []

    def cost(number: int) -> tuple[int, int, int]:
        ledger.attempts()
        counted.update(attempts=0, runs=0)
        ledger._db().set_trace_callback(statements.append)
        statements.clear()
        add(ledger, session, number)
        for _ in range(20):
            ledger.attempts()
            ledger.runs()
        ledger._db().set_trace_callback(None)
        return len(statements), counted["attempts"], counted["runs"]

    first = cost(1)
    for number in range(2, ROWS):
        add(ledger, session, number)
    assert cost(ROWS) == first
    assert first[1] <= 5
    assert first[2] <= 2
    assert len(ledger.attempts()) == ROWS


def test_what_another_process_writes_is_seen(tmp_path: Path) -> None:
    mine, other = Ledger.open(tmp_path, "t"), Ledger.open(tmp_path, "t")
    session = other.begin_session(driver="d")
    attempt = other.start_attempt(
        session_id=session, worker="gw0", name="m", kind="mutation", number=1
    ).id
    assert mine.attempt(attempt).state == "running"
    other.finish_attempt(attempt, verdict="crash")
    assert mine.attempt(attempt).verdict == "crash"


def test_later_runs_and_costs_of_a_finished_attempt_are_seen(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempt = add(ledger, ledger.begin_session(driver="d"), 1)
    assert len(ledger.attempt(attempt).runs) == 1
    run = ledger.start_run(
        attempt, seed=500, purpose="confirm", device="cpu", concurrency=1, budget="1s"
    )
    assert ledger.attempt(attempt).runs[-1].state == "running"
    ledger.finish_run(run, Run("ok", score=0.5))
    assert ledger.attempt(attempt).runs[-1].score == 0.5
    ledger.charge(attempt, Usage(cost_usd=0.5, requests=1))
    assert ledger.attempt(attempt).usage.cost_usd == 0.5


def test_a_transaction_that_fails_leaves_nothing_in_the_cache(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    session = ledger.begin_session(driver="d")

    def fail() -> None:
        with ledger._write() as db:
            db.execute(
                "INSERT INTO attempts (name, kind, number, session_id, state, started)"
                " VALUES ('m', 'mutation', 1, ?, 'running', 0)",
                (session,),
            )
            assert len(ledger.attempts()) == 1
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert ledger.attempts() == []
