"""The literals of a program as hyperparameters, found in its syntax tree and replaced by span.

Module constants in capitals come first, then literals inside functions: of the kept changes in a
published autoresearch log, half were constants, the other half such literals.
"""

from __future__ import annotations

import ast
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from .fingerprint import arithmetic, parse

Value = int | float | bool | str

_TRAPS = re.compile(r"^CUDA$|PEAK|FLOPS|SEED|DEVICE$|^DEBUG|VOCAB|SEQ_LEN|EPS")

_FRACTION = re.compile(r"RATIO|FRAC|DROPOUT|PROB")

_PATTERN = re.compile(r"[A-Z]{1,8}")

_MOMENTUM = re.compile(r"BETA|MOMENTUM|DECAY_RATE|EMA")

LOG_STEP = math.log(math.sqrt(2))
"""One step of a number searched in logarithms: two double it."""

TAIL_STEP = math.log(1.55)
"""One step of a momentum x, in the logarithm of 1 - x."""

LINEAR_STEPS = 10
"""Steps in the range of any other number."""


@dataclass(frozen=True)
class Hyperparameter:
    """One literal whose value can be changed.

    Attributes:
        name: Constant's name, or ``function#n``, the n-th float inside a function.
        value: Its current value.
        span: (line, column, end line, end column) of the literal, columns in UTF-8 bytes.
        choices: Values to choose from; empty for a range.
        low, high: Range of a number.
        log: Whether the range is searched in logarithms.
        tail: Whether it is searched in logarithms of 1 - x, as suits a momentum.
        upper: Whether it is a module constant in capitals.
    """

    name: str
    value: Value
    span: tuple[int, int, int, int]
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    tail: bool = False
    upper: bool = True

    @property
    def is_int(self) -> bool:
        """Whether its range has only whole numbers."""
        whole = float(self.low).is_integer() and float(self.high).is_integer()
        return whole and isinstance(self.value, int) and not isinstance(self.value, bool)

    @cached_property
    def ordered(self) -> bool:
        """Whether its values have an order: all do but words and switches."""
        return not any(isinstance(value, str | bool) for value in (self.value, *self.choices))

    @property
    def step(self) -> float:
        """Width of a step of a range without logarithms: a tenth of it, in integers at least 1."""
        width = (self.high - self.low) / LINEAR_STEPS
        return max(1, round(width)) if self.is_int else width

    def position(self, value: Value) -> float:
        """Return where a value lies, in steps: smaller differences are not worth a training."""
        if self.choices:
            return self._order.index(value) if value in self._order else self._nearest(value)
        number = float(value)
        if self.log:
            return math.log(max(number, 1e-300)) / LOG_STEP
        if self.tail:
            return -math.log(max(1 - number, 1e-300)) / TAIL_STEP
        return number / self.step

    def at(self, position: float) -> Value:
        """Return the value at a position, inside the range, with three digits."""
        if self.choices:
            return self._order[min(len(self._order) - 1, max(0, round(position)))]
        if self.log:
            return self._clip(math.exp(position * LOG_STEP))
        if self.tail:
            return self._clip(1 - float(f"{math.exp(-position * TAIL_STEP):.3g}"))
        return self._clip(position * self.step)

    @cached_property
    def _order(self) -> tuple[Value, ...]:
        values = tuple(dict.fromkeys((*self.choices, self.value)))
        return tuple(sorted(values, key=float)) if self.ordered else values

    def _nearest(self, value: Value) -> int:
        """Return the index of the choice next to a value that is none, e.g. of another parent."""
        if not self.ordered or isinstance(value, str):
            return -1
        order = [float(choice) for choice in self._order]
        return min(range(len(order)), key=lambda i: abs(order[i] - float(value)))

    def _clip(self, value: float) -> float | int:
        value = round(value, 12) if self.tail else float(f"{value:.3g}")
        value = min(self.high, max(self.low, value))
        return round(value) if self.is_int else value


def find(
    source: str, overrides: Mapping[str, Any] | None = None, cuda: bool = False
) -> list[Hyperparameter]:
    """Return the hyperparameters of a program, constants in capitals first.

    Args:
        source: Python text.
        overrides: Ranges by name: ``[choices]``, ``{low, high, log}`` or ``fixed``.
        cuda: Whether `a` is the value in ``NAME = a if CUDA else b``.

    Raises:
        SyntaxError: The text does not parse.
        ValueError: An override has another form.
    """
    tree = parse(source)
    parameters: dict[str, Hyperparameter] = {}
    for name, node, upper in [*_constants(tree, cuda), *_literals(tree)]:
        override = (overrides or {}).get(name)
        if override == "fixed" or (override is None and upper and _TRAPS.search(name)):
            continue
        value = fold(node)
        if value is None or name in parameters:
            continue
        span = (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0)
        parameter = Hyperparameter(name, value, span, upper=upper)
        bounded = _infer(parameter) if override is None else ranged(parameter, override)
        if bounded is not None:
            parameters[name] = bounded
    return list(parameters.values())


def _constants(tree: ast.Module, cuda: bool) -> Iterator[tuple[str, ast.expr, bool]]:
    for statement in tree.body:
        if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1):
            continue
        target, value = statement.targets[0], statement.value
        if not (isinstance(target, ast.Name) and re.fullmatch(r"[A-Z][A-Z0-9_]+", target.id)):
            continue
        if isinstance(value, ast.IfExp) and "cuda" in ast.dump(value.test).lower():
            value = value.body if cuda else value.orelse
        yield target.id, value, True


def _literals(tree: ast.Module) -> Iterator[tuple[str, ast.expr, bool]]:
    """Yield the floats inside functions; integers there are mostly shapes and indices."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        count = 0
        for statement in function.body:
            for node in ast.walk(statement):
                match node:
                    case ast.Constant(float(value)):
                        count += 1
                        if 1e-4 <= abs(value) <= 1e4 and value not in (0.5, 1.0, 2.0):
                            yield f"{function.name}#{count}", node, False


def fold(node: ast.expr) -> Value | None:
    """Return the value of a literal or of arithmetic on literals, or None."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = fold(node.operand)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, ast.BinOp):
        left, right = fold(node.left), fold(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float):
            return arithmetic(node.op, left, right)
    return None


def _infer(parameter: Hyperparameter) -> Hyperparameter | None:
    """Return the hyperparameter with the range that suits its value, or None."""
    value = parameter.value

    def choose(*choices: Value) -> Hyperparameter:
        return replace(parameter, choices=tuple(dict.fromkeys(choices)))

    def reach(low: float, high: float, log: bool = False, tail: bool = False) -> Hyperparameter:
        return replace(parameter, low=low, high=high, log=log, tail=tail)

    if isinstance(value, bool):
        return choose(False, True)
    if isinstance(value, str):
        if not (parameter.upper and _PATTERN.fullmatch(value)):
            return None
        letters = sorted(set(value), key=value.index)
        if len(letters) == 1:  # its other choices are those of the first program
            return choose(value)
        last, first = letters[-1], letters[0]
        return choose(value, last, first + last, first * 2 + last, first * 3 + last)
    if not math.isfinite(value) or (isinstance(value, int) and value < 1):
        return None
    if isinstance(value, int):
        if value >= 16 and value & (value - 1) == 0:
            return choose(value // 4, value // 2, value, value * 2)
        return reach(max(1, value // 2), value * 2, value >= 16)
    if _FRACTION.search(parameter.name):
        return reach(0.0, 1.0)
    if _is_momentum(parameter):
        return reach(max(0.0, 1 - 4 * (1 - value)), 1 - (1 - value) / 4, tail=True)
    if value == 0:
        return reach(0.0, 0.3)
    return reach(value / 4, value * 4, log=True) if value > 0 else None


def _is_momentum(parameter: Hyperparameter) -> bool:
    """Return whether a number moves on the scale of 1 - x: by its name, or by its value."""
    value = parameter.value
    if not isinstance(value, float) or _FRACTION.search(parameter.name):
        return False
    return 0.5 < value < 1 or (0 <= value < 1 and bool(_MOMENTUM.search(parameter.name)))


def ranged(parameter: Hyperparameter, override: Any) -> Hyperparameter:
    """Return the hyperparameter with the range that a researcher declared.

    Raises:
        ValueError: The declaration has another form.
    """
    if isinstance(override, list) and override:
        return replace(parameter, choices=tuple(override))
    if isinstance(override, dict) and {"low", "high"} <= set(override):
        with suppress(TypeError, ValueError):
            low, high = float(override["low"]), float(override["high"])
            log = bool(override.get("log", False))
            if low < high and (low > 0 or not log):
                tail = not log and low >= 0 and high < 1 and _is_momentum(parameter)
                return replace(parameter, low=low, high=high, log=log, tail=tail)
    raise ValueError(
        f"program.md: search_space: {parameter.name}: write [a, b], {{low: a, high: b}} or fixed"
    )


def substitute(
    source: str, space: Mapping[str, Hyperparameter], values: Mapping[str, Value]
) -> str:
    """Return `source` with literals replaced by span, so that comments and layout stay.

    Raises:
        SyntaxError: The result does not parse.
    """
    lines = source.splitlines(keepends=True)
    for parameter in sorted((space[name] for name in values), key=lambda p: p.span, reverse=True):
        line, column, end_line, end_column = parameter.span
        if line == end_line:
            raw = lines[line - 1].encode()
            text = repr(values[parameter.name]).encode()
            lines[line - 1] = (raw[:column] + text + raw[end_column:]).decode()
    result = "".join(lines)
    parse(result)
    return result


def values_of(source: str) -> dict[str, Value]:
    """Return the values of a program's hyperparameters; none if it does not parse."""
    try:
        return {parameter.name: parameter.value for parameter in find(source)}
    except SyntaxError:
        return {}
