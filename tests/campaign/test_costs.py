"""Cost of a program, planned from earlier runs."""

from __future__ import annotations

import math

import pytest

from pytest_autoresearch.campaign.costs import (
    KNOWN_TOLERANCE,
    LITERAL_TOLERANCE,
    MOST,
    TOLERANCE,
    plan_cost,
    program,
)
from pytest_autoresearch.core.run import CostPlan, Run

BASE, SLOWER, SLOWEST = (program({"train.py": f"COST = {n}\n"}) for n in (1, 2, 3))


def trained(name: str, cost: float, measured: float, first: float = 0.1, status="ok") -> Run:
    clock = {"cost": cost, "measured_cost": measured, "first_cpu_s": first}
    return Run(status, evidence={"program": name, "clock": clock})


BASELINE = [
    trained(BASE, 1.0, 0.97), trained(BASE, 1.0, 0.967, 0.2), trained(BASE, 1.0, 0.98, 0.3)
]  # fmt: skip


def test_program_is_named_by_its_files_alone():
    assert program({"a": "1", "b": "2"}) == program({"b": "2", "a": "1"})
    assert len({BASE, SLOWER, SLOWEST, program({"a": "1b", "b": "2"}), program({"a": "1"})}) == 5


def test_baseline_costs_one_before_and_after_it_was_measured():
    assert plan_cost(BASE, BASE, [], [], []) == CostPlan(1.0, math.inf)
    assert plan_cost(BASE, BASE, BASELINE, [], []) == CostPlan(1.0, math.inf, 0.97, 0.4)


def test_new_program_is_planned_at_the_cost_of_its_parent():
    assert plan_cost(SLOWER, BASE, BASELINE, [], BASELINE).cost == 1.0
    plan = plan_cost(SLOWEST, BASE, BASELINE, [], [trained(SLOWER, 1.5, 1.4)])
    assert (plan.cost, plan.tolerance, plan.bias) == (1.5, TOLERANCE, 0.97)


def test_edit_of_literals_is_tolerated_more():
    plan = plan_cost(SLOWER, BASE, BASELINE, [], BASELINE, literal=True)
    assert (plan.cost, plan.tolerance) == (1.0, LITERAL_TOLERANCE)


def test_program_that_ran_keeps_the_cost_of_its_first_run():
    earlier = [trained(BASE, 1.0, 0.9), trained(SLOWER, 1.5, 1.4), trained(SLOWER, 1.6, 1.5)]
    plan = plan_cost(SLOWER, BASE, BASELINE, earlier, BASELINE)
    assert (plan.cost, plan.tolerance) == (1.5, KNOWN_TOLERANCE)


@pytest.mark.parametrize(("measured", "tolerance"), [(1.01, TOLERANCE), (1.05, 0.1035), (2.0, MOST)])
def test_tolerance_follows_the_scatter_of_the_baseline(measured, tolerance):
    baseline = [trained(BASE, 1.0, 1.0), trained(BASE, 1.0, measured)]
    plan = plan_cost(SLOWER, BASE, baseline, [], baseline)
    assert plan.tolerance == pytest.approx(min(tolerance, MOST), abs=1e-4)


@pytest.mark.parametrize("run", [trained(SLOWER, 1.5, 1.4, status="crash"), Run("ok")])
def test_run_that_measured_nothing_plans_nothing(run):
    assert plan_cost(SLOWER, BASE, BASELINE, [run], [run]).cost == 1.0
