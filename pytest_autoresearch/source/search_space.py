"""The literals of a program as a search space, found in its syntax tree, replaced by span.

Module constants in capitals come first, then literals inside functions: half of the kept steps of
a published autoresearch night were constants, the other half such literals.
"""

from __future__ import annotations

import ast
import math
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from .fingerprint import parse

Value = int | float | bool | str

_FOLD: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Pow: operator.pow,
    ast.Mult: operator.mul,
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Div: operator.truediv,
}

_TRAPS = re.compile(r"^CUDA$|PEAK|FLOPS|SEED|DEVICE$|^DEBUG|VOCAB|SEQ_LEN|EPS")

_FRACTION = re.compile(r"RATIO|FRAC|DROPOUT|PROB")

_PATTERN = re.compile(r"[A-Z]{2,8}")


@dataclass(frozen=True)
class Knob:
    """One literal that can be turned.

    Attributes:
        name: Constant's name, or ``function:literal#n`` inside a function.
        value: As it stands.
        span: (line, column, end line, end column) of the literal, columns in UTF-8 bytes.
        choices: Values to choose from; empty for a range.
        low, high: Range of a number.
        log: Whether the range is searched in logarithms.
        upper: A module constant in capitals.
    """

    name: str
    value: Value
    span: tuple[int, int, int, int]
    choices: tuple[Value, ...] = ()
    low: float = 0.0
    high: float = 0.0
    log: bool = False
    upper: bool = True

    @property
    def is_int(self) -> bool:
        """Whether a range holds whole numbers only."""
        return isinstance(self.value, int) and not isinstance(self.value, bool)

    def clip(self, value: float) -> float | int:
        """Bring a number into the range, in the knob's type, at a few digits."""
        value = min(self.high, max(self.low, value))
        return round(value) if self.is_int else float(f"{value:.3g}")


def find(source: str, overrides: Mapping[str, Any] | None = None, cuda: bool = False) -> list[Knob]:
    """Return the knobs of a program, constants in capitals first.

    Args:
        source: Python text.
        overrides: Ranges by name: ``[choices]``, ``{low, high, log}`` or ``fixed``.
        cuda: Which side of ``NAME = a if CUDA else b`` is the active one.

    Raises:
        SyntaxError: The text does not parse.
        ValueError: An override has another form.
    """
    tree = parse(source)
    found: dict[str, Knob] = {}
    for name, node, upper in [*_constants(tree, cuda), *_literals(tree)]:
        override = (overrides or {}).get(name)
        if override == "fixed" or (override is None and upper and _TRAPS.search(name)):
            continue
        value = fold(node)
        if value is None or name in found:
            continue
        span = (node.lineno, node.col_offset, node.end_lineno or 0, node.end_col_offset or 0)
        knob = Knob(name, value, span, upper=upper)
        turned = ranged(knob, override) if override is not None else _infer(knob)
        if turned is not None:
            found[name] = turned
    return list(found.values())


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
    """Floats inside functions; whole numbers there are mostly structure (shapes, indices)."""
    for function in ast.walk(tree):
        if not isinstance(function, ast.FunctionDef):
            continue
        count = 0
        for statement in function.body:
            for node in ast.walk(statement):
                value = node.value if isinstance(node, ast.Constant) else None
                if not isinstance(node, ast.Constant) or type(value) is not float:
                    continue
                if 1e-4 <= abs(value) <= 1e4 and value not in (0.5, 1.0, 2.0):
                    count += 1
                    yield f"{function.name}:{value!r}#{count}", node, False


def fold(node: ast.expr) -> Value | None:
    """Return the value of a literal or of simple arithmetic on literals, or None."""
    if isinstance(node, ast.Constant):
        return node.value if isinstance(node.value, bool | int | float | str) else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        value = fold(node.operand)
        return -value if isinstance(value, int | float) else None
    if isinstance(node, ast.BinOp) and type(node.op) in _FOLD:
        left, right = fold(node.left), fold(node.right)
        if isinstance(left, int | float) and isinstance(right, int | float):
            if isinstance(node.op, ast.Pow) and abs(right) > 64:
                return None
            try:
                result = _FOLD[type(node.op)](left, right)
            except ArithmeticError:
                return None
            return result if isinstance(result, int | float) else None
    return None


def _infer(knob: Knob) -> Knob | None:
    """Give a knob the range that its kind of value deserves."""
    value = knob.value

    def choose(*choices: Value) -> Knob:
        return Knob(knob.name, value, knob.span, tuple(dict.fromkeys(choices)), upper=knob.upper)

    def reach(low: float, high: float, log: bool) -> Knob:
        return Knob(knob.name, value, knob.span, (), low, high, log, knob.upper)

    if isinstance(value, bool):
        return choose(False, True)
    if isinstance(value, str):
        if not (knob.upper and _PATTERN.fullmatch(value)):
            return None
        letters = sorted(set(value), key=value.index)
        last, first = letters[-1], letters[0]
        return choose(value, last, first + last, first * 2 + last, first * 3 + last)
    if not math.isfinite(value) or (isinstance(value, int) and value < 1):
        return None
    if isinstance(value, int):
        if value >= 16 and value & (value - 1) == 0:
            return choose(value // 4, value // 2, value, value * 2)
        return reach(max(1, value // 2), value * 2, value >= 16)
    if _FRACTION.search(knob.name):
        return reach(0.0, 1.0, False)
    if 0.5 < value < 1:  # momenta and the like move on the scale of 1 - x
        return reach(max(0.0, 1 - 4 * (1 - value)), 1 - (1 - value) / 4, False)
    if value == 0:
        return reach(0.0, 0.3, False)
    return reach(value / 4, value * 4, True) if value > 0 else None


def ranged(knob: Knob, override: Any) -> Knob:
    """Return a knob with the range that a researcher gave it.

    Raises:
        ValueError: It has another form.
    """
    if isinstance(override, list) and override:
        return Knob(knob.name, knob.value, knob.span, tuple(override), upper=knob.upper)
    if isinstance(override, dict) and {"low", "high"} <= set(override):
        with suppress(TypeError, ValueError):
            low, high = float(override["low"]), float(override["high"])
            log = bool(override.get("log", False))
            if low < high and (low > 0 or not log):
                return Knob(knob.name, knob.value, knob.span, (), low, high, log, knob.upper)
    raise ValueError(f"program.md: knobs: {knob.name}: write [a, b], {{low: a, high: b}} or fixed")


def turn(source: str, knobs: Mapping[str, Knob], values: Mapping[str, Value]) -> str:
    """Return `source` with literals replaced by span, so that comments and layout stay.

    Raises:
        SyntaxError: The result does not parse.
    """
    lines = source.splitlines(keepends=True)
    chosen = sorted((knobs[name] for name in values), key=lambda knob: knob.span, reverse=True)
    for knob in chosen:
        line, column, end_line, end_column = knob.span
        if line != end_line:
            continue
        raw = lines[line - 1].encode()
        text = repr(values[knob.name]).encode()
        lines[line - 1] = (raw[:column] + text + raw[end_column:]).decode()
    result = "".join(lines)
    parse(result)
    return result


def values_of(source: str, knobs: Mapping[str, Knob], cuda: bool = False) -> dict[str, Value]:
    """Return the values that another version of the program gives the same knobs."""
    try:
        there = {knob.name: knob.value for knob in find(source, cuda=cuda)}
    except SyntaxError:
        return {}
    return {name: there[name] for name in knobs if name in there}
