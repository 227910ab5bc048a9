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
