"""Budgets of counted CPU work, on a simulated machine."""

from __future__ import annotations

import contextlib
import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.run import CostPlan
from pytest_autoresearch.training.workclock import Burst, EqualWorkClock

BATCH = 1000
STEP_S = 0.05
"""CPU seconds the baseline needs for a batch on a quiet machine."""


class Machine:
    """A simulated machine with a reference and a candidate in training.

    Args:
        cost: CPU cost of the candidate per token, relative to the baseline.
        load: Slowdown of the machine as a function of the candidate's CPU seconds.
        step_noise: Draws a factor for each step of the reference.
        first: Cost of the first batch, relative to the others.
        later: Factor of the cost from half of the budget on.
    """

    def __init__(
        self, cost=1.0, load=lambda cpu: 1.0, step_noise=lambda: 1.0, first=1.0, later=1.0
    ) -> None:
        self.cost, self.load, self.step_noise = cost, load, step_noise
        self.first, self.later = first, later
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

    def train(
        self, amount: float, seed: int = 0, plan: CostPlan | None = None
    ) -> tuple[int, EqualWorkClock]:
        """Train until the budget ends; return the tokens handed out and the clock."""
        clock = EqualWorkClock(
            amount, lambda: self.cpu, self.burst, self.pause, random.Random(seed), BATCH, plan
        )
        clock.begin()
        tokens = 0
        while clock.admit(BATCH):
            step = STEP_S * self.cost * self.load(self.cpu - 17.0)
            step *= self.first if not tokens else self.later if clock.progress > 0.5 else 1.0
            tokens += BATCH
            for _ in range(3):
                self.cpu += step / 3
                clock.poll()
            assert tokens < 100 * amount
        return tokens, clock


def hiccups(seed: int):
    noise = random.Random(seed)
    return lambda: 5.0 if noise.random() < 0.05 else noise.gauss(1, 0.03)


BASELINE = CostPlan(1.0, math.inf)


@pytest.mark.parametrize("cost", [0.97, 1.0, 1.2])
def test_baseline_gets_exactly_its_tokens_whatever_is_measured(cost):
    machine = Machine(cost, lambda cpu: 1 + cpu / 20, hiccups(3), first=30.0)
    tokens, clock = machine.train(300_000, plan=BASELINE)
    assert tokens == 300_000
    assert not clock.overdue
    assert clock.facts()["cost"] == 1.0
    assert clock.facts()["measured_cost"] == pytest.approx(cost, rel=0.1)


@pytest.mark.parametrize("seed", range(8))
def test_program_whose_cost_agrees_with_its_plan_gets_exactly_the_planned_tokens(seed):
    noise = random.Random(seed)
    machine = Machine(1.31, lambda cpu: 1 + cpu / 99, lambda: noise.gauss(1, 0.03), first=5.0)
    tokens, clock = machine.train(300_000, seed, CostPlan(1.3, tolerance=0.05))
    assert tokens == round(300_000 / 1.3, -3)
    assert clock.facts()["planned"]


def test_measured_cost_is_corrected_by_what_the_baseline_measures():
    tokens, clock = Machine(1.5 * 0.9).train(300_000, plan=CostPlan(1.0, bias=0.9))
    assert tokens == pytest.approx(300_000 / 1.5, rel=0.01)
    assert clock.facts()["cost"] == pytest.approx(1.5, rel=0.01)
    assert clock.facts()["measured_cost"] == pytest.approx(1.35, rel=0.01)


@pytest.mark.parametrize("later", [1.2, 3.0, 30.0])
def test_program_that_grows_dearer_pays_for_all_but_the_tolerance(later):
    machine = Machine(later=later)
    _, clock = machine.train(300_000)
    spent = (machine.cpu - 17.0) / STEP_S * BATCH
    assert spent <= 300_000 * (1 + CostPlan().tolerance) + 2 * BATCH or clock.overdue


@pytest.mark.parametrize("cost", [1.0304, 1.0305, 1.0306, 1.0307, 1.031, 1.04])
def test_plan_given_up_near_the_end_leaves_the_run_in_time(cost):
    tokens, clock = Machine(cost).train(300_000)
    assert not clock.overdue
    assert tokens >= 300_000 / cost - BATCH


@pytest.mark.parametrize(("charged_s", "tokens"), [(0.04, 100_000), (0.06, 99_000), (1.0, 80_000)])
def test_charge_below_a_step_of_the_baseline_does_not_change_the_tokens(charged_s, tokens):
    machine = Machine()
    clock = EqualWorkClock(
        100_000, lambda: machine.cpu, machine.burst, machine.pause, step=BATCH, plan=BASELINE
    )
    clock.begin(charged_s)
    counted = 0
    while clock.admit(BATCH):
        counted += BATCH
        machine.cpu += STEP_S
    assert counted == tokens


def test_first_batch_costs_what_is_planned_within_its_allowance():
    tokens, clock = Machine(first=6.0).train(100_000)
    assert tokens == 100_000
    assert clock.facts()["first_cpu_s"] == pytest.approx(6 * STEP_S)


def test_first_batch_is_charged_above_its_allowance():
    tokens, _ = Machine(first=41.0).train(100_000, plan=CostPlan(first_cpu_s=STEP_S))
    assert tokens == pytest.approx(60_000, rel=0.02)


def test_progress_of_a_planned_run_depends_on_tokens_alone():
    def shown(load):
        machine = Machine(load=load)
        clock = EqualWorkClock(50_000, lambda: machine.cpu, machine.burst, machine.pause)
        clock.begin()
        found = []
        while clock.admit(BATCH):
            found.append(clock.progress)
            machine.cpu += STEP_S * load(machine.cpu)
            clock.poll()
        return found

    assert shown(lambda cpu: 1.0) == shown(lambda cpu: 1.0 + 0.01 * (cpu % 2))


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
    tokens, _ = Machine(step_noise=hiccups(5)).train(600_000)
    assert tokens == pytest.approx(600_000, rel=0.04)


def test_reference_takes_about_its_share():
    machine = Machine()
    _, clock = machine.train(600_000)
    facts = clock.facts()
    assert facts["reference_share"] == pytest.approx(0.12, abs=0.03)
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


def test_seconds_above_an_allowance_count_against_the_budget():
    machine = Machine()
    clock = EqualWorkClock(100_000, lambda: machine.cpu, machine.burst, machine.pause, step=BATCH)
    clock.begin(charged_s=2.5)  # half of the 5 CPU seconds that the baseline needs
    assert clock.progress == pytest.approx(0.5)
    assert not clock.overdue_with(2.5)
    assert clock.overdue_with(2.8)  # above the tolerance of the plan and one step


def test_saving_counts_only_above_its_allowance():
    machine = Machine()
    clock = EqualWorkClock(100_000, lambda: machine.cpu, machine.burst, machine.pause, step=BATCH)
    clock.begin()
    machine.cpu += 4.9
    clock.end()
    machine.cpu += 100.0
    assert clock.work() == pytest.approx(98_000)
    clock.charge(0.35)
    assert clock.overdue


def test_budget_that_a_burst_ends_leaves_the_usual_slack():
    """The second burst finds a faster machine: more work was done than the clock had shown."""
    cpu, costs = 0.0, iter([2.0, 1.0, 1.0])
    clock = EqualWorkClock(
        100.0,
        lambda: cpu,
        lambda progress: Burst((next(costs),), 1e-6),
        contextlib.nullcontext,
        plan=CostPlan(cost=1.0, tolerance=0.0),
    )
    clock.begin()
    for step in range(73):
        cpu = 2.0 * step  # one token per 2 CPU seconds at first
        assert clock.admit(1)
    cpu += 1.0
    assert clock.work() == pytest.approx(145 / 2)
    clock.poll()
    assert clock.work() == pytest.approx(145 * 0.75)
    assert not clock.overdue
    cpu += 1.5
    assert not clock.overdue
    cpu += 1.0
    assert clock.overdue
    assert not clock.admit(1)
