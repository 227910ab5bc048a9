"""The experiment that a user declares in ``conftest.py``."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

Direction = Literal["min", "max"]

BudgetKind = Literal["wall", "work", "equal"]

_SECONDS = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}

_TOKENS = {"tok": 1, "ktok": 1_000, "mtok": 1_000_000, "gtok": 1_000_000_000}

_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(s|min|m|h)")

_WORK = re.compile(r"(equal:)?(\d+(?:\.\d+)?)\s*(tok|ktok|mtok|gtok)", re.IGNORECASE)


@dataclass(frozen=True)
class Metric:
    """The number that a campaign improves.

    Attributes:
        name: Name of the metric, and of the attribute of ``trial`` that holds it.
        direction: ``"min"`` when lower is better, ``"max"`` when higher is.
        unit: Shown beside the number; not interpreted.
    """

    name: str = "val_bpb"
    direction: Direction = "min"
    unit: str = "bits/byte"

    def gain(self, new: float, old: float) -> float:
        """Return by how much `new` is better than `old`, in either direction."""
        return old - new if self.direction == "min" else new - old


@dataclass(frozen=True)
class Budget:
    """The training budget of one run.

    Attributes:
        kind: ``"wall"``: seconds of wall time; ``"work"``: units of training data (tokens);
            ``"equal"``: compute-matched, i.e. the CPU work that the baseline code needs for
            `amount` units on this machine now.
        amount: Seconds for ``"wall"``, units of work otherwise.
    """

    kind: BudgetKind
    amount: float

    @classmethod
    def parse(cls, text: str) -> Budget:
        """Read ``300s``, ``5min``, ``2h``, ``600ktok`` or ``equal:600ktok``.

        Raises:
            ValueError: If the text has another form or the amount is not positive.
        """
        lowered = text.strip().lower()
        if match := _DURATION.fullmatch(lowered):
            budget = cls("wall", float(match[1]) * _SECONDS[match[2]])
        elif match := _WORK.fullmatch(lowered):
            budget = cls("equal" if match[1] else "work", float(match[2]) * _TOKENS[match[3]])
        else:
            raise ValueError(f"{text!r} is not a budget; write 300s, 600ktok or equal:600ktok")
        if not (math.isfinite(budget.amount) and budget.amount > 0):
            raise ValueError(
                f"the budget {text!r} is not positive; write 300s, 600ktok or equal:600ktok"
            )
        return budget

    def __str__(self) -> str:
        if self.kind == "wall":
            return f"{self.amount:g}s"
        work = f"{self.amount / 1000:g}ktok" if self.amount >= 1000 else f"{self.amount:g}tok"
        return f"equal:{work}" if self.kind == "equal" else work


@dataclass(frozen=True)
class Guard:
    """A bound on a secondary metric of a finished run.

    Attributes:
        metric: Name in the run's metrics, e.g. ``"total_seconds"``.
        at_most: Upper bound, absolute.
        at_least: Lower bound, absolute.
        at_most_times_baseline: Upper bound as a multiple of the baseline's mean.
    """

    metric: str
    at_most: float | None = None
    at_least: float | None = None
    at_most_times_baseline: float | None = None

    def __post_init__(self) -> None:
        """Validate the bounds.

        Raises:
            ValueError: There is none, or one is not a number.
        """
        bounds = (self.at_most, self.at_least, self.at_most_times_baseline)
        given = [bound for bound in bounds if bound is not None]
        numbers = (type(b) in (int, float) and not math.isnan(b) for b in given)
        if not given or not all(numbers):
            raise ValueError(f"{self} bounds nothing; give at_most, at_least or a multiple")


@dataclass(frozen=True)
class Experiment:
    """The declaration of an experiment.

    Attributes:
        files: Editable files, relative to the root directory; a mutation may change only these.
        context: Fixed files a proposer may read (never edit).
        program: The researcher's brief; pytest collects the attempts from it.
        metric: The metric to improve.
        budget: Training budget of one run; None: ``equal:600ktok`` on a CPU, ``300s`` on CUDA.
        data: Folder of the prepared data set; required by the training contract.
        run: None: the first editable file obeys the training contract (``build``, ``train``,
            ``logits``; docs/contract.md) and the harness computes the score. Otherwise a command
            whose output holds ``name: value`` lines; its score is *self-reported*.
        guards: Bounds on secondary metrics.
        checks: Shell command that must succeed in the mutated copy before a keep, or None.
        search_space: Search ranges of literals, by name, that override the inferred ones.
        proposer: As ``--autoresearch-proposer``; used where that option is not given and no
            credentials of a language model are set. Empty: ``gp``.
    """

    files: tuple[str, ...] = ("train.py",)
    context: tuple[str, ...] = ("prepare.py",)
    program: str = "program.md"
    metric: Metric = field(default_factory=Metric)
    budget: Budget | None = None
    data: Path | None = None
    run: tuple[str, ...] | None = None
    guards: tuple[Guard, ...] = ()
    checks: str | None = None
    search_space: Mapping[str, object] = field(default_factory=dict)
    proposer: str = ""

    def __post_init__(self) -> None:
        """Reject guards on the metric itself.

        Raises:
            ValueError: There is one.
        """
        if any(guard.metric == self.metric.name for guard in self.guards):
            raise ValueError(f"{self.metric.name} is the metric, so no guard may bound it")
