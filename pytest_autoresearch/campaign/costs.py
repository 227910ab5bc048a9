"""Plan the cost of a program from earlier runs, so that equal programs get equally many tokens."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from statistics import median, stdev
from typing import Any

from ..core.run import CostPlan, Run

TOLERANCE, LITERAL_TOLERANCE, KNOWN_TOLERANCE = 0.03, 0.06, 0.08
"""Of a program not run before, which is planned at its parent's cost: two to three standard errors
of what one run measures. Of one that differs from its parent in literals only, which mostly costs
the same. And of one that an earlier run measured, where a deviation is more probably the machine's:
a program cannot know which of its runs is the first."""

SCATTER, MOST = 3.0, 0.1
"""On a busy machine, where the baseline's own costs scatter by more, so many times their standard
deviation; and the largest tolerance. Preempted processes cost up to a quarter more."""

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
    *,
    literal: bool = False,
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
        literal: Whether it differs from that one in literals only.
    """
    clocks = [run.evidence["clock"] for run in baseline if _measured(run)]
    bias = median(clock["measured_cost"] for clock in clocks) if clocks else 1.0
    first_cpu_s, resolution = CostPlan().first_cpu_s, 0.0
    if clocks:
        first_cpu_s = FIRST_BATCH * median(clock["first_cpu_s"] for clock in clocks)
    if len(clocks) > 1:
        scatter = stdev(math.log(clock["measured_cost"]) for clock in clocks)
        resolution = min(MOST, SCATTER * scatter)
    if name == baseline_name:
        return CostPlan(1.0, math.inf, bias, first_cpu_s)
    for run in earlier:
        if run.evidence.get("program") == name and _measured(run):
            tolerance = max(KNOWN_TOLERANCE, resolution)
            return CostPlan(run.evidence["clock"]["cost"], tolerance, bias, first_cpu_s)
    costs = [run.evidence["clock"]["cost"] for run in parent if _measured(run)]
    tolerance = max(LITERAL_TOLERANCE if literal else TOLERANCE, resolution)
    return CostPlan(costs[0] if costs else 1.0, tolerance, bias, first_cpu_s)


def _measured(run: Run) -> bool:
    clock: Mapping[str, Any] = run.evidence.get("clock", {})
    return run.status == "ok" and clock.get("measured_cost", 0) > 0
