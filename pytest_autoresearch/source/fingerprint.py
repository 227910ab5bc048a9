"""Fingerprint programs, so that repeated mutations are recognised.

Python files are hashed as normalised syntax trees: no comments, formatting or docstrings; no dead
branches or unused locals; local variables numbered in order of appearance; literal arithmetic
folded; imports and constant definitions in canonical order. If it is known which names of a module
others use, its other definitions are numbered, too, and its unused imports removed. Where a rewrite
might change the meaning, nothing is normalised. Other files, and those that do not parse, are
hashed as text. The cost is bounded.
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
from itertools import groupby
from typing import Any

from .scopes import local_names
from .simplify import flatten, remove_unused_locals, simplify_module, sort_imports

VERSION = 2
"""Of the normal form. It begins each fingerprint, so that those of ledgers written by other
versions never equal one by accident."""

CONTRACT = frozenset({"build", "train", "logits"})
"""The names of a program under the training contract that the harness uses."""

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
"""Maximum size of folded integers; ``9**9**9`` would take hours."""

_PRINTED_BITS = 4096
"""Integers above this size are hashed in hex, since Python does not print them in decimal."""

_DYNAMIC = {"exec", "eval", "locals", "vars", "globals", "__import__", "compile", "dir",
            "__builtins__", "_getframe", "currentframe", "f_locals", "co_varnames"}  # fmt: skip

_METHODS = {"eval", "compile"}
"""Names that models and regular expressions have as methods."""

_READERS = {"builtins", "inspect", "dis", "numexpr", "pandas"}
"""Modules by which a program may look up its local variables by name."""

_CONSTANT = (
    ast.Constant, ast.Name, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.UnaryOp, ast.BinOp,
    ast.BoolOp, ast.Compare, ast.IfExp, ast.expr_context, ast.operator, ast.unaryop, ast.boolop,
    ast.cmpop,
)  # fmt: skip

UNREADABLE = (SyntaxError, ValueError, RecursionError, MemoryError)
"""Raised by the parser for invalid programs; the last two for deep nesting."""

_PARSING = threading.Lock()
"""Serialises `ast.parse`: CPython 3.11 shares the recursion counter between threads."""

RETRIES = 20
"""Retries of `ast.parse`, since another thread's parse can raise SystemError."""


def parse(text: str) -> ast.Module:
    """Parse a program without warnings.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: It is invalid (`UNREADABLE`).
    """
    with _PARSING, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for _ in range(RETRIES):
            with contextlib.suppress(SystemError):
                return ast.parse(text)
        return ast.parse(text)


def parse_file(text: str) -> ast.Module:
    """Parse the text of a file, which may begin with a byte order mark; raises as `parse`."""
    return parse(text.removeprefix("\ufeff"))


def fingerprint(files: Mapping[str, str], public: frozenset[str] | None = None) -> str:
    """Return the version and 64 hex digits, equal for equal programs.

    Args:
        files: The program.
        public: Names of a single file's definitions that other programs use; None: any.
    """
    public = public if len(files) == 1 else None
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{_digest(name, files[name], public)}\0".encode())
    return f"{VERSION}:{digest.hexdigest()}"


@lru_cache(maxsize=128)
def _digest(name: str, text: str, public: frozenset[str] | None = None) -> str:
    tree = _normal_tree(name, text, public)
    if tree is not None:
        text = ast.dump(tree)
    elif not name.endswith(".py"):
        text = text.replace("\r\n", "\n")
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


@dataclass(frozen=True)
class Shape:
    """A program without its literals.

    Attributes:
        skeleton: 64 hex digits, equal for programs that differ in literals only.
        literals: The removed literals, in order.
    """

    skeleton: str
    literals: tuple[object, ...]

    def close_to(self, other: Shape, share: float) -> bool:
        """Return whether only numbers differ, each by less than `share` of the larger."""
        if self.skeleton != other.skeleton or len(self.literals) != len(other.literals):
            return False
        return all(_close(a, b, share) for a, b in zip(self.literals, other.literals, strict=True))


def _close(a: object, b: object, share: float) -> bool:
    if type(a) is type(b) and a == b:
        return True
    numbers = type(a) in (int, float) and type(b) in (int, float)
    return numbers and abs(a - b) < share * max(abs(a), abs(b))  # type: ignore[operator, arg-type]


def shape(files: Mapping[str, str]) -> Shape:
    """Separate the literals of a program from its structure."""
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
    skeleton = hashlib.sha256(ast.dump(tree).encode("utf-8", "surrogatepass")).hexdigest()
    return skeleton, tuple(literals)


def complexity(files: Mapping[str, str]) -> int:
    """Count the syntax nodes of a program, without comments, docstrings and formatting."""
    return sum(_nodes(name, text) for name, text in files.items())


def _nodes(name: str, text: str) -> int:
    """Count the nodes of a Python file, not normalised if it is nested too deeply."""
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


def _normal_tree(
    name: str, text: str, public: frozenset[str] | None = None
) -> ast.Module | None:
    """Return the normalised tree, or None for a file that is hashed as text."""
    if not name.endswith(".py"):
        return None
    try:
        tree: ast.Module = _Folder().visit(parse_file(text))
        flatten(tree)
        if "__doc__" not in text and "getdoc" not in text:
            _strip_docstrings(tree)
        if not _is_dynamic(tree):
            remove_unused_locals(tree)
            if public is not None:
                simplify_module(tree, name.rpartition("/")[2].removesuffix(".py"), public)
            _rename_locals(tree)
        tree.body = _sort_constants(sort_imports(tree.body))
        ast.dump(tree)
    except UNREADABLE:
        return None
    return tree


class _Folder(ast.NodeTransformer):
    """Folds arithmetic on number literals: ``2**10`` becomes ``1024``."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        if left is None or right is None:
            return node
        value = arithmetic(node.op, left, right)
        return node if value is None else ast.Constant(value)

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        value = _number(node.operand)
        if value is None or not isinstance(node.op, ast.USub | ast.UAdd):
            return node
        return ast.Constant(-value if isinstance(node.op, ast.USub) else value)

    def visit_JoinedStr(self, node: ast.JoinedStr) -> ast.AST:
        self.generic_visit(node)
        parts = [getattr(part, "value", None) for part in node.values]
        strings = [part for part in parts if isinstance(part, str)]
        return ast.Constant("".join(strings)) if len(strings) == len(parts) else node

    def visit_Constant(self, node: ast.Constant) -> ast.AST:
        if type(node.value) is int and node.value.bit_length() > _PRINTED_BITS:
            return ast.Constant(("int", hex(node.value)))  # type: ignore[arg-type]
        return ast.Constant(node.value)


def arithmetic(op: ast.operator, left: float, right: float) -> float | int | None:
    """Return the result of an operation on two numbers; None if undefined or too large."""
    if type(op) not in _FOLD or _bits(op, left, right) > _FOLD_BITS:
        return None
    try:
        value = _FOLD[type(op)](left, right)
    except (ArithmeticError, ValueError, TypeError):
        return None
    return value if isinstance(value, int | float) else None


def _bits(op: ast.operator, left: float, right: float) -> int:
    """Return the maximum size in bits of an integer result; 0 for floats."""
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
            match node.body:
                case [ast.Expr(ast.Constant(str())), *rest]:
                    node.body = rest or [ast.Pass()]


def _is_dynamic(tree: ast.AST) -> bool:
    """Return whether a program visibly looks up its variables by name."""
    return any(
        (isinstance(node, ast.Name) and node.id in _DYNAMIC)
        or (isinstance(node, ast.Attribute) and node.attr in _DYNAMIC - _METHODS)
        or (isinstance(node, ast.Import) and any(_is_reader(alias.name) for alias in node.names))
        or (isinstance(node, ast.ImportFrom) and _is_reader(node.module or ""))
        for node in ast.walk(tree)
    )


def _is_reader(module: str) -> bool:
    return module.partition(".")[0] in _READERS


def _rename_locals(tree: ast.AST) -> None:
    """Rename local variables to ``<0>``, ``<1>``, …, which are not valid names."""
    numbers: dict[tuple[int, str], str] = {}
    for node, scope in local_names(tree):
        node.id = numbers.setdefault((scope, node.id), f"<{len(numbers)}>")


def _sort_constants(body: list[ast.stmt]) -> list[ast.stmt]:
    """Sort each sequence of consecutive constant definitions."""
    result: list[ast.stmt] = []
    for constant, group in groupby(body, _is_constant_definition):
        statements = list(group)
        result += _ordered(statements) if constant else statements
    return result


def _is_constant_definition(statement: ast.stmt) -> bool:
    """Return whether it assigns literals, names and operators to one name.

    Calls may have side effects; operators on names are assumed to have none.
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


def _ordered(definitions: list[ast.stmt]) -> list[ast.stmt]:
    """Return the lexicographically smallest order that respects all dependencies.

    Two definitions keep their order if one reads or writes a name that the other writes, so
    equivalent orders become equal. A topological sort with a heap: n log n.
    """
    keys = [ast.dump(statement) for statement in definitions]
    blocked = [0] * len(definitions)
    followers: list[list[int]] = [[] for _ in definitions]
    writer: dict[str, int] = {}
    readers: dict[str, list[int]] = {}
    for i, statement in enumerate(definitions):
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
        result.append(definitions[i])
        for j in followers[i]:
            blocked[j] -= 1
            if blocked[j] == 0:
                heapq.heappush(free, (keys[j], j))
    return result
