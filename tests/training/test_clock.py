"""Budgets: tokens, batches, wall time and counted CPU work, on a simulated machine."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.training.clock import (
    BudgetTooSmall,
    Burst,
    EqualWorkClock,
    StepClock,
    WallClock,
    WorkClock,
)

BATCH = 1000
STEP_S = 0.05
"""CPU seconds the baseline needs for a batch on a quiet machine."""


class Machine:
    """A simulated machine with a reference and a candidate in training.

    Args:
        cost: CPU cost of the candidate per token, relative to the baseline.
        load: Slowdown of the machine as a function of the candidate's CPU seconds.
        step_noise: Draws a factor for each step of the reference.
    """

    def __init__(self, cost=1.0, load=lambda cpu: 1.0, step_noise=lambda: 1.0) -> None:
        self.cost, self.load, self.step_noise = cost, load, step_noise
        self.cpu = 17.0  # CPU seconds of start-up
        self.paused = 0
        self.bursts = 0

    def burst(self, progress: float) -> Burst:
        assert self.paused == 1
        assert 0 <= progress < 1
        self.bursts += 1
        cost = STEP_S / BATCH * self.load(self.cpu - 17.0)
        costs = tuple(cost * self.step_noise() for _ in range(3))
        return Burst(costs, (sum(costs) + cost) * BATCH)

    @contextlib.contextmanager
    def pause(self):
        self.paused += 1
        yield
        self.paused -= 1

    def train(self, amount: float, seed: int = 0) -> tuple[int, EqualWorkClock]:
        """Train until the budget ends; return the tokens handed out and the clock."""
        clock = EqualWorkClock(
            amount, lambda: self.cpu, self.burst, self.pause, rng=random.Random(seed)
        )
        clock.begin()
        tokens = 0
        while clock.admit(BATCH):
            tokens += BATCH
            step = STEP_S * self.cost * self.load(self.cpu - 17.0)
            for _ in range(3):
                self.cpu += step / 3
                clock.poll()
            assert tokens < 100 * amount
        return tokens, clock


def test_baseline_gets_exactly_its_tokens():
    tokens, _ = Machine().train(300_000)
    assert tokens == pytest.approx(300_000, rel=0.005)


@pytest.mark.parametrize("cost", [0.5, 1.3, 2.0, 7.0])
def test_slower_candidate_gets_proportionally_fewer_tokens(cost):
    tokens, _ = Machine(cost).train(300_000)
    assert tokens == pytest.approx(300_000 / cost, rel=0.03)


def test_second_core_counts_double():
    """Two busy threads use CPU seconds twice as fast, like a candidate of twice the cost."""
    tokens, _ = Machine(cost=2.0).train(100_000)
    assert tokens == pytest.approx(50_000, rel=0.03)


def test_changing_machine_load_does_not_change_the_budget():
    quiet, _ = Machine(1.3).train(600_000)
    loaded, _ = Machine(1.3, load=lambda cpu: 1.0 + 0.8 * ((cpu // 7) % 2)).train(600_000)
    growing, _ = Machine(1.3, load=lambda cpu: 1.0 + cpu / 20).train(600_000)
    assert loaded == pytest.approx(quiet, rel=0.04)
    assert growing == pytest.approx(quiet, rel=0.04)


def test_outlier_steps_of_the_reference_do_not_change_the_budget():
    noise = random.Random(5)

    def hiccup() -> float:
        return 5.0 if noise.random() < 0.05 else noise.gauss(1, 0.03)

    tokens, _ = Machine(step_noise=hiccup).train(600_000)
    assert tokens == pytest.approx(600_000, rel=0.04)


def test_reference_takes_about_its_share():
    machine = Machine()
    _, clock = machine.train(600_000)
    facts = clock.facts()
    assert facts["reference_share"] == pytest.approx(0.08, abs=0.025)
    assert facts["reference_bursts"] == machine.bursts
    assert facts["equivalent_tokens"] == pytest.approx(600_000, rel=0.01)
    assert facts["reference_us_per_token"] == pytest.approx(50.0)


def test_bursts_come_at_random_moments():
    def moments(seed):
        machine, found = Machine(), []
        burst = machine.burst
        machine.burst = lambda progress: (found.append(machine.cpu), burst(progress))[1]
        machine.train(300_000, seed)
        return found

    assert moments(1) != moments(2)


@given(
    st.lists(st.floats(0.001, 3.0), min_size=1, max_size=60),
    st.lists(st.floats(0.2, 5.0), min_size=1, max_size=20),
)
def test_progress_never_decreases_and_stays_below_one(steps, speeds):
    machine = Machine()
    factors = iter(speeds * 100)
    machine.step_noise = lambda: next(factors)
    clock = EqualWorkClock(
        50_000, lambda: machine.cpu, machine.burst, machine.pause, rng=random.Random(0)
    )
    clock.begin()
    shown = [clock.progress]
    for step in steps:
        machine.cpu += step
        clock.poll()
        shown.append(clock.progress)
    assert shown == sorted(shown)
    assert shown[-1] < 1


def test_progress_is_constant_while_the_candidate_uses_no_cpu():
    machine = Machine()
    clock = EqualWorkClock(50_000, lambda: machine.cpu, machine.burst, machine.pause)
    clock.begin()
    machine.cpu += 1.0
    clock.poll()
    before = clock.progress
    for _ in range(50):
        clock.poll()
    assert clock.progress == before
    assert machine.bursts <= 2


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


def test_seconds_above_an_allowance_count_against_the_budget():
    machine = Machine()
    clock = EqualWorkClock(100_000, lambda: machine.cpu, machine.burst, machine.pause, step=BATCH)
    clock.begin(charged_s=2.5)  # half of the 5 CPU seconds that the baseline needs
    assert clock.progress == pytest.approx(0.5)
    assert not clock.overdue_with(2.5)
    assert clock.overdue_with(2.6)


def test_saving_counts_only_above_its_allowance():
    machine = Machine()
    clock = EqualWorkClock(100_000, lambda: machine.cpu, machine.burst, machine.pause, step=BATCH)
    clock.begin()
    machine.cpu += 4.9
    clock.end()
    machine.cpu += 100.0
    assert clock.used() == pytest.approx(98_000)
    clock.charge(0.2)
    assert clock.overdue


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
