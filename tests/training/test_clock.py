"""Budgets of tokens, batches and wall time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.training.clock import (
    BudgetTooSmall,
    StepClock,
    WallClock,
    WorkClock,
)


def test_work_clock_admits_exactly_what_fits():
    clock = WorkClock(10_000)
    clock.begin()
    sizes = [3000, 3000, 3000, 3000, 1000, 1]
    assert [clock.admit(size) for size in sizes] == [True, True, True, False, True, False]


def test_work_clock_progress_is_the_fraction_handed_out():
    clock = WorkClock(8000)
    shown = []
    while True:
        shown.append(clock.progress)
        if not clock.admit(2000):
            break
    assert shown == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_batch_larger_than_the_whole_budget_raises():
    with pytest.raises(BudgetTooSmall, match="9999"):
        WorkClock(5000).admit(9999)


def test_step_clock_counts_batches_of_any_size():
    clock = StepClock(2)
    assert [clock.admit(size) for size in (10**6, 1, 1)] == [True, True, False]


def test_step_clock_is_overdue_when_a_whole_budget_was_charged():
    clock = StepClock(2, spare_s=5.0)
    clock.begin(charged_s=4.0)
    assert not clock.overdue_with(1.0)
    assert clock.overdue_with(1.1)
    assert not StepClock(2, math.inf).overdue_with(1e9)


class Ticking:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.mark.parametrize("step", [0.1, 1.0, 3.0])
def test_wall_clock_ends_at_the_step_nearest_to_the_budget(step):
    time = Ticking()
    clock = WallClock(10.0, time)
    time.now += 50  # time before the first batch does not count
    clock.begin()
    began = time.now
    while clock.admit(1):
        time.now += step
    assert abs(time.now - began - 10.0) <= step / 2 + 1e-6


def test_wall_clock_is_overdue_without_batch_requests():
    time = Ticking()
    clock = WallClock(100.0, time)
    clock.begin()
    for _ in range(20):
        assert clock.admit(1)
        time.now += 1.0
    time.now = 200.5
    assert not clock.overdue
    time.now = 204.0
    assert clock.overdue


def used_by_giant_steps(clock, advance, amount: float) -> float:
    """Work through two thirds of the budget on one batch, then for ever on another."""
    clock.begin()
    assert clock.admit(1)
    advance(0.665 * amount)
    if clock.admit(1):
        while not clock.overdue:
            advance(0.001 * amount)
    return clock.used() / amount


def test_two_giant_steps_gain_nothing():
    time = Ticking()

    def advance(seconds: float) -> None:
        time.now += seconds

    clock = WallClock(100.0, time, step=0.5)
    assert used_by_giant_steps(clock, advance, 100.0) <= 1.0
    assert not clock.overdue


def test_giant_step_after_small_ones_is_overdue_after_one_per_cent():
    time = Ticking()
    clock = WallClock(100.0, time, step=0.5)
    clock.begin()
    for _ in range(60):
        assert clock.admit(1)
        time.now += 1.0
    assert clock.admit(1)
    time.now += 40.9
    assert not clock.overdue
    time.now += 0.2
    assert clock.overdue


@given(
    st.lists(st.floats(0.01, 40.0), min_size=1, max_size=50),
    st.floats(0.05, 5.0),
    st.floats(0.0, 30.0),
)
def test_run_that_is_not_overdue_used_its_budget_and_slack_at_most(steps, step, charged):
    time = Ticking()
    clock = WallClock(100.0, time, step=step)
    clock.begin(charged)
    for seconds in steps:
        if clock.overdue or not clock.admit(1):
            break
        time.now += seconds
    if not clock.overdue:
        assert charged + time.now - 100.0 <= 100.0 + max(1.0, step) + 1e-9


def test_tokens_have_no_price_in_seconds():
    clock = WorkClock(10_000)
    clock.begin(0.0)
    assert not clock.overdue
    assert clock.overdue_with(0.1)


def test_batch_may_hold_a_quarter_of_the_budget_once_the_baseline_is_known():
    assert WorkClock(8000).admit(8000)
    assert WorkClock(8000, step=100.0).admit(2000)
    with pytest.raises(BudgetTooSmall, match="may hold 2000"):
        WorkClock(8000, step=100.0).admit(2001)
    assert WorkClock(8000, step=4000.0).admit(4000)
