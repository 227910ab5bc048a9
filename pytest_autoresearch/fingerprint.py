"""When two mutations are the same program: a fingerprint that comments and names do not change.

Python files are hashed as normalised syntax trees: no comments, formatting or docstrings; local
variables numbered in order of appearance; literal arithmetic folded; runs of independent constant
definitions sorted. Where a rewrite might change meaning, nothing is normalised.
"""

from __future__ import annotations

import ast
import hashlib
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

_FOLD: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
    ast.FloorDiv: operator.floordiv,
}
_DYNAMIC = {"exec", "eval", "locals", "vars", "globals", "__import__", "compile"}


def fingerprint(files: Mapping[str, str]) -> str:
    """Return 64 hex digits that equal programs share."""
    digest = hashlib.sha256()
    for name in sorted(files):
        digest.update(f"{name}\0{_normal(name, files[name])}\0".encode())
    return digest.hexdigest()


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
        tree = _normal_tree(name, files[name])
        if tree is None:
            digest.update(f"{name}\0{_normal(name, files[name])}\0".encode())
            continue
        for node in ast.walk(tree):
            if isinstance(node, ast.Constant):
                literals.append(node.value)
                node.value = None
        digest.update(f"{name}\0{ast.dump(tree)}\0".encode())
    return Shape(digest.hexdigest(), tuple(literals))


def complexity(files: Mapping[str, str]) -> int:
    """Count the syntax nodes of a program; comments, docstrings and formatting weigh nothing."""
    trees = [_normal_tree(name, text) for name, text in files.items()]
    return sum(1 for tree in trees if tree is not None for _ in ast.walk(tree))


def _normal_tree(name: str, text: str) -> ast.Module | None:
    if not name.endswith(".py"):
        return None
    try:
        tree: ast.Module = _Folder().visit(ast.parse(text))
    except (SyntaxError, ValueError, RecursionError):
        return None
    _strip_docstrings(tree)
    if not _is_dynamic(tree):
        _rename_locals(tree)
    tree.body = _sort_constants(tree.body)
    return tree


def _normal(name: str, text: str) -> str:
    if name.endswith(".py"):
        tree = _normal_tree(name, text)
        return text if tree is None else ast.dump(tree)
    return "\n".join(line.rstrip() for line in text.strip().splitlines())


class _Folder(ast.NodeTransformer):
    """Fold arithmetic on number literals: ``2**10`` and ``1024`` are one constant."""

    def visit_BinOp(self, node: ast.BinOp) -> ast.AST:
        self.generic_visit(node)
        left, right = _number(node.left), _number(node.right)
        fold = _FOLD.get(type(node.op))
        if left is None or right is None or fold is None or abs(right) > 64 < abs(left):
            return node
        try:
            value = fold(left, right)
        except (ArithmeticError, ValueError):
            return node
        return ast.Constant(value) if isinstance(value, int | float) else node

    def visit_UnaryOp(self, node: ast.UnaryOp) -> ast.AST:
        self.generic_visit(node)
        value = _number(node.operand)
        if value is not None and isinstance(node.op, ast.USub):
            return ast.Constant(-value)
        return node


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


def _is_dynamic(tree: ast.AST) -> bool:
    return any(isinstance(node, ast.Name) and node.id in _DYNAMIC for node in ast.walk(tree))


def _rename_locals(tree: ast.AST) -> None:
    """Number the plain local variables of functions without inner scopes, in order of binding.

    Parameters keep their names, since callers may pass them by keyword; functions that declare
    ``global`` or ``nonlocal``, or hold another scope, are left alone.
    """
    scopes = ast.FunctionDef | ast.AsyncFunctionDef
    inner = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef, ast.ListComp,
             ast.SetComp, ast.DictComp, ast.GeneratorExp, ast.Global, ast.Nonlocal)  # fmt: skip
    for function in ast.walk(tree):
        if not isinstance(function, scopes):
            continue
        body = [node for statement in function.body for node in ast.walk(statement)]
        if any(isinstance(node, inner) for node in body):
            continue
        arguments = {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)}
        names: dict[str, str] = {}
        for node in body:
            if not isinstance(node, ast.Name) or node.id in arguments:
                continue
            if isinstance(node.ctx, ast.Store):
                names.setdefault(node.id, f"_{len(names)}")
        for node in body:
            if isinstance(node, ast.Name) and node.id in names:
                node.id = names[node.id]


def _sort_constants(body: list[ast.stmt]) -> list[ast.stmt]:
    """Sort each run of ``NAME = literal`` definitions; nothing in a run depends on another."""
    result: list[ast.stmt] = []
    run: list[ast.stmt] = []
    for statement in [*body, ast.Pass()]:
        if _is_literal_definition(statement):
            run.append(statement)
            continue
        targets = [ast.dump(s.targets[0]) for s in run if isinstance(s, ast.Assign)]
        result += sorted(run, key=ast.dump) if len(set(targets)) == len(targets) else run
        run = []
        result.append(statement)
    return result[:-1]


def _is_literal_definition(statement: ast.stmt) -> bool:
    if not (isinstance(statement, ast.Assign) and len(statement.targets) == 1):
        return False
    if not isinstance(statement.targets[0], ast.Name):
        return False
    names = {n.id for n in ast.walk(statement.value) if isinstance(n, ast.Name)}
    calls = any(isinstance(n, ast.Call) for n in ast.walk(statement.value))
    return not calls and names <= {"CUDA", "True", "False", "None"}
