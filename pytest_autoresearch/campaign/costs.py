"""Plan the cost of a program from earlier runs, so that equal programs get equally many tokens."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median
from typing import Any

from ..core.run import CostPlan, Run

TOLERANCE = 0.03
"""Of a program not run before, which is planned at its parent's cost: two to three standard errors
of the cost that one run measures (benchmarks/noise.py)."""

KNOWN_TOLERANCE = 0.05
"""Of a program that an earlier run measured."""

FIRST_BATCH = 2.0
"""CPU seconds that a first batch may take, as a multiple of the baseline's."""


def program(code: Mapping[str, str]) -> str:
    """Return the identity of a program by its editable files."""
    return hashlib.sha256(json.dumps(dict(code), sort_keys=True).encode()).hexdigest()[:16]


def plan_cost(
    name: str,
    baseline_name: str,
    baseline: Sequence[Run],
    earlier: Iterable[Run],
    parent: Iterable[Run],
) -> CostPlan:
    """Return the plan of the program `name`.

    The baseline costs 1 by definition. A program that ran before keeps the cost of that run. Any
    other is planned at its parent's cost, a fixed number: small deviations cannot add up over
    generations, since each program is compared with that number and not with its parent's runs.

    Args:
        name: Identity of the program.
        baseline_name: Identity of the baseline.
        baseline: Runs of the baseline.
        earlier: Runs in which the program may occur.
        parent: Runs of the program that it was made from.
    """
    clocks = [run.evidence["clock"] for run in baseline if _measured(run)]
    bias = median(clock["measured_cost"] for clock in clocks) if clocks else 1.0
    default = CostPlan()
    first_cpu_s = default.first_cpu_s
    if clocks:
        first_cpu_s = FIRST_BATCH * median(clock["first_cpu_s"] for clock in clocks)
    if name == baseline_name:
        return CostPlan(1.0, math.inf, bias, first_cpu_s)
    for run in earlier:
        if run.evidence.get("program") == name and _measured(run):
            return CostPlan(run.evidence["clock"]["cost"], KNOWN_TOLERANCE, bias, first_cpu_s)
    costs = [run.evidence["clock"]["cost"] for run in parent if _measured(run)]
    return CostPlan(costs[0] if costs else 1.0, TOLERANCE, bias, first_cpu_s)


def _measured(run: Run) -> bool:
    clock: Mapping[str, Any] = run.evidence.get("clock", {})
    return run.status == "ok" and clock.get("measured_cost", 0) > 0
