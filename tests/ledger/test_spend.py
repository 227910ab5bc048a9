"""Money: no interleaving of workers spends more than the cap, and nothing is free by mistake."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pytest_autoresearch.core.money import NoPrice, SetAside, price, prices_version
from pytest_autoresearch.core.proposal import ProposerExhausted, Usage
from pytest_autoresearch.ledger.spend import CostBudget

WORKER = """
import sys
from pathlib import Path
from pytest_autoresearch.core.proposal import ProposerExhausted
from pytest_autoresearch.ledger.spend import CostBudget
purse, bought = CostBudget(Path(sys.argv[1]), 1.0), 0
try:
    while True:
        purse.settle(purse.reserve("m", 0.1), 0.05)
        bought += 1
except ProposerExhausted:
    print(bought)
"""


def test_workers_share_one_purse(tmp_path) -> None:
    one, two = (CostBudget(tmp_path / "ledger.sqlite", cap=1.0) for _ in range(2))
    number = one.reserve("m", 0.7)
    with pytest.raises(ProposerExhausted):
        two.reserve("m", 0.4)
    one.settle(number, 0.1)
    two.reserve("m", 0.4)
    assert one.spent() == pytest.approx(0.5)


def test_money_that_calls_in_flight_hold_is_waited_for(tmp_path, monkeypatch) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite", cap=1.0)
    cost_budget.settle(cost_budget.reserve("m", 0.2), 0.2)
    held = cost_budget.reserve("m", 0.7)
    with pytest.raises(SetAside):
        cost_budget.reserve("m", 0.7)
    with pytest.raises(ProposerExhausted) as spent:
        cost_budget.reserve("m", 0.9)  # too much, whatever the call in flight costs
    assert spent.type is ProposerExhausted
    monkeypatch.setattr(
        "pytest_autoresearch.ledger.spend.IN_FLIGHT_S", 0.0
    )  # its process was killed
    with pytest.raises(ProposerExhausted) as spent:
        cost_budget.reserve("m", 0.7)
    assert spent.type is ProposerExhausted
    cost_budget.settle(held, 0.1)
    cost_budget.reserve("m", 0.7)


def test_processes_that_race_for_it_never_exceed_the_cap(tmp_path) -> None:
    path = tmp_path / "ledger.sqlite"
    command = [sys.executable, "-c", WORKER, str(path)]
    racing = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(3)]
    bought = sum(int(process.communicate(timeout=60)[0]) for process in racing)
    assert all(process.returncode == 0 for process in racing)
    assert CostBudget(path).spent() == pytest.approx(0.05 * bought)
    assert 17 <= bought <= 19  # the last reservations do not fit


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(st.floats(0.01, 0.6), st.floats(0, 1) | st.none()), max_size=8))
def test_the_cap_holds_whatever_is_settled_or_lost(calls) -> None:
    with tempfile.TemporaryDirectory() as folder:
        cost_budget, expected = CostBudget(Path(folder) / "ledger.sqlite", cap=1.0), 0.0
        for amount, share in calls:
            if expected + amount > 1.0 + 1e-9:
                with pytest.raises(ProposerExhausted):
                    cost_budget.reserve("m", amount)
            elif expected + amount < 1.0 - 1e-9:
                number = cost_budget.reserve("m", amount)
                if share is not None:
                    cost_budget.settle(number, amount * share)
                expected += amount * (1.0 if share is None else share)
            assert cost_budget.spent() == pytest.approx(expected)
            assert cost_budget.spent() <= 1.0


def test_without_a_cap_everything_is_still_written_down(tmp_path) -> None:
    cost_budget = CostBudget(tmp_path / "ledger.sqlite")
    cost_budget.settle(cost_budget.reserve("m", 1000.0), 999.0)
    assert cost_budget.spent() == 999.0
    db = sqlite3.connect(cost_budget.path)
    rows = db.execute("SELECT model, prices, reserved, settled FROM spend").fetchall()
    db.close()
    assert rows == [("m", prices_version(), 1000.0, 999.0)]


def test_a_model_without_a_price_is_named() -> None:
    with pytest.raises(NoPrice, match="no-such-model"):
        price("anthropic", Usage("no-such-model", input_tokens=1))


@pytest.mark.parametrize(
    "kind", ["input_tokens", "cache_read_tokens", "cache_write_tokens", "output_tokens"]
)
def test_every_kind_of_token_has_its_price(kind: str) -> None:
    million = {
        "input_tokens": 2.0,
        "cache_read_tokens": 0.1,
        "cache_write_tokens": 4.0,
        "output_tokens": 10.0,
    }
    used = Usage("claude-sonnet-5-5", **{kind: 50_000})
    assert price("anthropic", used) == pytest.approx(million[kind] / 20)
