"""When two mutations are the same program: a fingerprint that comments and names do not change.

Python files are hashed as normalised syntax trees: no comments, formatting or docstrings; local
variables numbered in order of appearance; literal arithmetic folded; definitions of constants in
one order. Where a rewrite might change meaning, nothing is normalised. What the parser cannot read,
and what is no Python, is hashed as text: whatever a candidate wrote has a fingerprint, at a bounded
cost.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import heapq
import operator
import threading
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

from .scopes import local_names

_FOLD: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.LShift: operator.lshift,
    ast.RShift: operator.rshift,
}

_FOLD_BITS = 512
"""Integers up to this size are folded; ``9**9**9`` would keep the harness busy for hours."""

_PRINTED_BITS = 4096
"""Integers above this size are hashed in hex: Python refuses to print them in decimal."""

_DYNAMIC = {"exec", "eval", "locals", "vars", "globals", "__import__", "compile", "dir",
            "__builtins__", "_getframe", "currentframe", "f_locals", "co_varnames"}  # fmt: skip

_METHODS = {"eval", "compile"}
"""What a model and a regular expression have, too."""

_READERS = {"builtins", "inspect", "dis", "numexpr", "pandas"}
"""Modules through which a program may look up its own local variables by name."""

_CONSTANT = (
    ast.Constant, ast.Name, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp,
    ast.BoolOp, ast.Compare, ast.IfExp, ast.expr_context, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop,
)  # fmt: skip

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""What the parser raises for text that is no program: the last one for deep nesting."""

_PARSING = threading.Lock()
"""Held while a tree is made: Python 3.11 counts its depth for all threads together, and a draft is
checked in a thread of its own."""

OTHERS = 20
"""Times that somebody else's tree, made without the lock, may spoil one."""


def parse(text: str) -> ast.Module:
    """Parse a program, silently.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: It is none (`UNREADABLE`).
    """
    with _PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(OTHERS):
            with contextlib.suppress(SystemError):
                return ast.parse(text)
        return ast.parse(text)


def parse_file(text: str) -> ast.Module:
    """Parse what a file holds, a byte order mark included; places in the first line are the text's
    without it.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: It is no program (`UNREADABLE`).
    """
    return parse(text.removeprefix("\ufeff"))


def fingerprint(files: Mapping[str, str]) -> str:
    """Return 64 hex digits that equal programs share."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{_digest(name, files[name])}\0".encode())
    return digest.hexdigest()


@lru_cache(maxsize=128)
def _digest(name: str, text: str) -> str:
    return hashlib.sha256(_normal(name, text).encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Shape:
    """A program with its literals taken out.

    Attributes:
        skeleton: 64 hex digits that programs share which differ in literals only.
        literals: What was taken out, in order.
    """

    skeleton: str
    literals: tuple[object, ...]

    def close_to(self, other: Shape, share: float) -> bool:
        """Whether only numbers differ, each by less than `share` of the larger."""
        if self.skeleton != other.skeleton or len(self.literals) != len(other.literals):
            return False
        return all(_close(a, b, share) for a, b in zip(self.literals, other.literals, strict=True))


def _close(a: object, b: object, share: float) -> bool:
    if type(a) is type(b) and a == b:
        return True
    numbers = type(a) in (int, float) and type(b) in (int, float)
    return numbers and abs(a - b) < share * max(abs(a), abs(b))  # type: ignore[operator, arg-type]


def shape(files: Mapping[str, str]) -> Shape:
    """Take the literals out of a program."""
    literals: list[object] = []
    digest = hashlib.sha256()
    for name in sorted(files):
        skeleton, found = _shape(name, files[name])
        literals += found
        digest.update(f"{name}\0{skeleton}\0".encode())
    return Shape(digest.hexdigest(), tuple(literals))


@lru_cache(maxsize=128)
def _shape(name: str, text: str) -> tuple[str, tuple[object, ...]]:
    tree = _normal_tree(name, text)
    if tree is None:
        return _digest(name, text), ()
    literals = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant):
            literals.append(node.value)
            node.value = None
    return hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest(), tuple(
        literals
    )


def complexity(files: Mapping[str, str]) -> int:
    """Count the syntax nodes of a program; comments, docstrings and formatting weigh nothing."""
    return sum(_nodes(name, text) for name, text in files.items())


def _nodes(name: str, text: str) -> int:
    """Nodes of a Python file; what is nested too deeply to be normalised is counted as it is."""
    if not name.endswith(".py"):
        return 0
    tree = _normal_tree(name, text)
    if tree is None:
        try:
            tree = parse_file(text)
        except UNREADABLE:
            return len(text)
        _strip_docstrings(tree)
    return sum(1 for _ in ast.walk(tree))


def _normal_tree(name: str, text: str) -> ast.Module | None:
    """The normalised tree, which can be dumped; None for what is hashed as text."""
    if not name.endswith(".py"):
        return None
    try:
        tree: ast.Module = _Folder().visit(parse_file(text))
        if "__doc__" not in text and "getdoc" not in text:
            _strip_docstrings(tree)
        _strip_idle(tree)
        if not _is_dynamic(tree):
            _rename_locals(tree)
        tree.body = _sort_constants(tree.body)
        ast.dump(tree)
    except UNREADABLE:
        return None
    return tree


def _normal(name: str, text: str) -> str:
    if name.endswith(".py"):
        tree = _normal_tree(name, text)
        return text if tree is None else ast.dump(tree)
    return text.replace("\r\n", "\n")


class _Folder(ast.NodeTransformer):
    """Fold arithmetic on number literals: ``2**10`` and ``1024`` are one constant."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        fold = _FOLD.get(type(node.op))
        if left is None or right is None or fold is None:
            return node
        if _bits(node.op, left, right) > _FOLD_BITS:
            return node
        try:
            value = fold(left, right)
        except (ArithmeticError, ValueError, TypeError):
            return node
        return ast.Constant(value) if isinstance(value, int | float) else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        value = _number(node.operand)
        if value is not None and isinstance(node.op, ast.USub):
            return ast.Constant(-value)
        if value is not None and isinstance(node.op, ast.UAdd):
            return ast.Constant(value)
        return node

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        parts = [getattr(part, "value", None) for part in node.values]
        strings = [part for part in parts if isinstance(part, str)]
        return ast.Constant("".join(strings)) if len(strings) == len(parts) else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is int and node.value.bit_length() > _PRINTED_BITS:
            return ast.Constant(("int", hex(node.value)))  # type: ignore[arg-type]
        return ast.Constant(node.value)


def _bits(op: ast.operator, left: float, right: float) -> int:
    """Size that the result of integer arithmetic may have; floats have one size."""
    if isinstance(left, float) or isinstance(right, float):
        return 0
    a, b = left.bit_length(), right.bit_length()
    if isinstance(op, ast.LShift):
        return a + max(0, right)
    if isinstance(op, ast.Pow):
        return a * max(0, right) if b <= 32 else a << 32
    return a + b + 1


def _number(node: ast.AST) -> float | int | None:
    if isinstance(node, ast.Constant) and type(node.value) in (int, float):
        return node.value  # type: ignore[return-value]
    return None


def _strip_docstrings(tree: ast.AST) -> None:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            first = node.body[0] if node.body else None
            if (
                isinstance(first, ast.Expr)
                and isinstance(first.value, ast.Constant)
                and isinstance(first.value.value, str)
            ):
                node.body = node.body[1:] or [ast.Pass()]


def _strip_idle(tree: ast.AST) -> None:
    """Take out ``pass`` and literals that stand alone: nothing runs there."""
    for node in ast.walk(tree):
        for name in ("body", "orelse", "finalbody"):
            block = getattr(node, name, None)
            if isinstance(block, list):
                busy = [s for s in block if not _is_idle(s)]
                setattr(node, name, busy or ([ast.Pass()] if block and name == "body" else []))


def _is_idle(statement: ast.stmt) -> bool:
    if isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant):
        return not isinstance(statement.value.value, str)  # a string may be somebody's docstring
    return isinstance(statement, ast.Pass)


def _is_dynamic(tree: ast.AST) -> bool:
    """Whether a program may look up its own variables by name; a scan is no proof of the rest."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and node.id in _DYNAMIC:
            return True
        if isinstance(node, ast.Attribute) and node.attr in _DYNAMIC - _METHODS:
            return True
        if isinstance(node, ast.Import) and any(_is_reader(a.name) for a in node.names):
            return True
        if isinstance(node, ast.ImportFrom) and _is_reader(node.module or ""):
            return True
    return False


def _is_reader(module: str) -> bool:
    return module.partition(".")[0] in _READERS


def _rename_locals(tree: ast.AST) -> None:
    """Number the local variables of functions and comprehensions, in order of appearance.

    ``<0>`` is no name that a program can have, so nothing is captured.
    """
    numbers: dict[tuple[int, str], str] = {}
    for node, scope in local_names(tree):
        node.id = numbers.setdefault((scope, node.id), f"<{len(numbers)}>")


def _sort_constants(body: list[ast.stmt]) -> list[ast.stmt]:
    """Bring each run of definitions of constants into one order."""
    result: list[ast.stmt] = []
    run: list[ast.stmt] = []
    for statement in body:
        if _is_constant_definition(statement):
            run.append(statement)
            continue
        result += [*_ordered(run), statement]
        run = []
    return result + _ordered(run)


def _is_constant_definition(statement: ast.stmt) -> bool:
    """Whether it binds one name to what literals, names and operators make; calls may do anything.

    Names may stand for anything, too, but operators on them that have side effects would be odd.
    """
    if isinstance(statement, ast.AnnAssign):
        parts: list[ast.expr | None] = [statement.target, statement.annotation, statement.value]
    elif isinstance(statement, ast.Assign) and len(statement.targets) == 1:
        parts = [statement.targets[0], statement.value]
    else:
        return False
    return isinstance(parts[0], ast.Name) and all(
        part is not None and isinstance(node, _CONSTANT)
        for part in parts
        for node in ast.walk(part or statement)
    )


def _ordered(run: list[ast.stmt]) -> list[ast.stmt]:
    """The smallest order in which no definition overtakes one that it depends on.

    Two definitions keep their order if one reads or writes what the other writes; so all orders
    that mean the same become one. A topological sort with a heap: n log n.
    """
    keys = [ast.dump(statement) for statement in run]
    blocked = [0] * len(run)
    followers: list[list[int]] = [[] for _ in run]
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    for i, statement in enumerate(run):
        names = [n for n in ast.walk(statement) if isinstance(n, ast.Name)]
        written = {n.id for n in names if isinstance(n.ctx, ast.Store)}
        before = {writer[n.id] for n in names if n.id in writer}
        before.update(j for name in written for j in readers.pop(name, ()))
        for j in before:
            followers[j].append(i)
        blocked[i] = len(before)
        writer.update(dict.fromkeys(written, i))
        for name in {n.id for n in names} - written:
            readers.setdefault(name, []).append(i)
    free = [(keys[i], i) for i, count in enumerate(blocked) if count == 0]
    heapq.heapify(free)
    result = []
    while free:
        _, i = heapq.heappop(free)
        result.append(run[i])
        for j in followers[i]:
            blocked[j] -= 1
            if blocked[j] == 0:
                heapq.heappush(free, (keys[j], j))
    return result
