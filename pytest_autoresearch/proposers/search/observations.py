"""The ledger's history as observations of hyperparameters' effects."""

from __future__ import annotations

import heapq
import math
from collections.abc import Sequence

import numpy as np

from ...core.proposal import Context, PastAttempt
from ...source.search_space import Value, find
from .effects import Gains, Programs
from .literals import HALF_STEP, UNKNOWN, Space, Values, overrides, structure

MAX_POINTS = 96
"""Attempts that the model is fitted to, half of them the newest and half the best of the others.
The fit is cubic in their number, and matrices of 128 rows start the threads of BLAS: twenty times
the CPU seconds, on cores that train."""

WORST = -5.0
"""Gain, in sigma, that stands for anything worse and for programs that fail."""

Program = tuple[str, Values]
"""Digest of a program's structure, and the values of its hyperparameters."""


class Reader:
    """Reads the programs of past attempts, each file once."""

    def __init__(self) -> None:
        self._read: dict[int, Program | None] = {}

    def program(self, context: Context, attempt: PastAttempt) -> Program | None:
        """Return an attempt's program; None if its file does not parse."""
        if "structure" in attempt.meta:
            return attempt.meta["structure"], attempt.meta["params"]
        if attempt.attempt_id not in self._read:
            text = attempt.read_files().get(context.experiment.files[0], "")
            try:
                found = {one.name: one for one in find(text, overrides(context), context.cuda)}
                values = {name: one.value for name, one in found.items()}
                self._read[attempt.attempt_id] = structure(text, found), values
            except SyntaxError:
                self._read[attempt.attempt_id] = None
        return self._read[attempt.attempt_id]


class Table:
    """Programs as rows of positions, for one search space."""

    def __init__(self, space: Space) -> None:
        self.space = space
        self._structures: dict[str, int] = {}

    def programs(self, programs: Sequence[Program]) -> Programs:
        """Return the programs as points; what one lacks counts as the parent has it."""
        rows = [
            [p.position(values.get(name, p.value)) for name, p in self.space.items()]
            for _, values in programs
        ]
        numbers = [self._structures.setdefault(key, len(self._structures)) for key, _ in programs]
        return Programs(
            np.array(rows, dtype=np.float64).reshape(len(rows), len(self.space)),
            np.array(numbers, dtype=np.int64),
        )


class Observations:
    """What the model is fitted to.

    Attributes:
        gains: The attempts.
        running: Which of them still run; their gain is not known.
        seen: Values of each hyperparameter in any of them, by half-steps.
    """

    def __init__(self, context: Context, table: Table, reader: Reader, sigma: float) -> None:
        self.seen: dict[str, dict[int, Value]] = {name: {} for name in table.space}
        programs, champions, gains, errors, running = [], [], [], [], []
        for attempt, champion in points(context.history):
            program, reference = (reader.program(context, one) for one in (attempt, champion))
            if program is None or reference is None:
                continue
            for name in self.seen.keys() & program[1].keys():
                value = program[1][name]
                self.seen[name][round(table.space[name].position(value) / HALF_STEP)] = value
            gain = WORST * sigma if attempt.gain is None else attempt.gain
            programs.append(program)
            champions.append(reference)
            gains.append(max(gain, WORST * sigma))
            errors.append(_error(attempt) or sigma)
            running.append(attempt.verdict == "running")
        self.running = np.array(running, dtype=np.bool_)
        self.gains = Gains(
            table.programs(programs), table.programs(champions), np.array(gains), np.array(errors)
        )


def points(history: Sequence[PastAttempt]) -> list[tuple[PastAttempt, PastAttempt]]:
    """Return the attempts to fit, at most `MAX_POINTS`, oldest first, with their champions."""
    found: list[tuple[PastAttempt, PastAttempt]] = []
    champion = history[0]
    for attempt in history:
        if attempt.verdict == "baseline":
            continue
        if attempt.verdict == "running" or attempt.verdict not in UNKNOWN:
            found.append((attempt, champion))
        if attempt.verdict == "keep":
            champion = attempt
    older, newest = found[: -MAX_POINTS // 2], found[-MAX_POINTS // 2 :]
    ranked = [(one.gain, i) for i, (one, _) in enumerate(older) if one.gain is not None]
    best = sorted(i for _, i in heapq.nlargest(MAX_POINTS - len(newest), ranked))
    return [older[i] for i in best] + newest


def _error(attempt: PastAttempt) -> float:
    """Return the standard error that the judge saw, or 0."""
    if not attempt.gain or not attempt.gain_sigma or not math.isfinite(attempt.gain_sigma):
        return 0.0
    return abs(attempt.gain / attempt.gain_sigma)
