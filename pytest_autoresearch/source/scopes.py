"""Find the local variables of a syntax tree by Python's scoping rules.

Only names that can be renamed without effect count: parameters may be passed by keyword, imported
names, functions and classes are visible elsewhere, and names in a class body are attributes.
"""

from __future__ import annotations

import ast
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class _Scope:
    kind: Literal["module", "class", "function", "comprehension"]
    parent: _Scope | None
    number: int
    bound: set[str] = field(default_factory=set)
    fixed: set[str] = field(default_factory=set)
    imported: set[str] = field(default_factory=set)
    """Those of `fixed` that are bound by a string, as by an import or an ``except``."""


Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def module_names(tree: ast.AST) -> dict[str, list[ast.Name | Definition]]:
    """Return the occurrences of each variable, function and class of the module, by name.

    Imported names, those declared ``global``, and those that a class body binds too are omitted.
    """
    reader = _Reader()
    reader.visit(tree)
    module = reader.scopes[0]
    omitted = module.imported | reader.declared
    omitted = omitted.union(*(s.bound | s.fixed for s in reader.scopes if s.kind == "class"))
    names: dict[str, list[ast.Name | Definition]] = {}
    for node, scope in [*reader.definitions, *reader.uses]:
        name = node.id if isinstance(node, ast.Name) else node.name
        owner = _resolve(name, scope) if isinstance(node, ast.Name) else scope
        if owner is module and name not in omitted:
            names.setdefault(name, []).append(node)
    return names


def local_names(tree: ast.AST) -> list[tuple[ast.Name, int]]:
    """Return every occurrence of a local variable, in order, with the number of its scope.

    Equal numbers and names mean the same variable. Names declared ``global`` or ``nonlocal``
    anywhere are omitted everywhere.
    """
    reader = _Reader()
    reader.visit(tree)
    occurrences = []
    for node, seen_from in reader.uses:
        scope = _resolve(node.id, seen_from)
        if scope is None or scope.kind not in ("function", "comprehension"):
            continue
        if node.id not in scope.fixed and node.id not in reader.declared:
            occurrences.append((node, scope.number))
    return occurrences


def _resolve(name: str, scope: _Scope | None) -> _Scope | None:
    """Return the scope of a name used in `scope`; class scopes are visible only from themselves."""
    here = scope
    while scope is not None:
        visible = scope.kind != "class" or scope is here
        if visible and (name in scope.bound or name in scope.fixed):
            return scope
        scope = scope.parent
    return None


class _Reader(ast.NodeVisitor):
    """Collects the bindings of each scope, and the scope of each use of a name."""

    def __init__(self) -> None:
        self.scope = _Scope("module", None, 0)
        self.scopes = [self.scope]
        self.uses: list[tuple[ast.Name, _Scope]] = []
        self.definitions: list[tuple[Definition, _Scope]] = []
        self.declared: set[str] = set()

    def _inside(
        self, kind: Literal["class", "function", "comprehension"], nodes: Sequence[ast.AST | None]
    ) -> _Scope:
        outer = self.scope
        self.scope = inner = _Scope(kind, outer, len(self.scopes))
        self.scopes.append(inner)
        self._each(nodes)
        self.scope = outer
        return inner

    def _each(self, nodes: Sequence[ast.AST | None]) -> None:
        for node in nodes:
            if node is not None:
                self.visit(node)

    def visit_Name(self, node: ast.Name) -> None:
        self.uses.append((node, self.scope))
        if not isinstance(node.ctx, ast.Load):
            self.scope.bound.add(node.id)

    def visit_NamedExpr(self, node: ast.NamedExpr) -> None:
        self.visit(node.value)
        inner, owner = self.scope, self.scope
        while owner.kind == "comprehension" and owner.parent is not None:
            owner = owner.parent
        self.scope = owner
        self.visit(node.target)
        self.scope = inner

    def _define(self, node: Definition) -> None:
        self.scope.fixed.add(node.name)
        self.definitions.append((node, self.scope))

    def _import(self, name: str) -> None:
        self.scope.fixed.add(name)
        self.scope.imported.add(name)

    def _function(
        self, node: ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda, body: Sequence[ast.AST]
    ) -> None:
        arguments = node.args
        self._each([*arguments.defaults, *arguments.kw_defaults])
        names = [a for a in ast.walk(arguments) if isinstance(a, ast.arg)]
        self._each([a.annotation for a in names])
        self._inside("function", body).fixed |= {a.arg for a in names}

    def visit_FunctionDef(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> None:
        self._define(node)
        self._each([*node.decorator_list, node.returns])
        self._function(node, [*getattr(node, "type_params", ()), *node.body])

    visit_AsyncFunctionDef = visit_FunctionDef

    def visit_Lambda(self, node: ast.Lambda) -> None:
        self._function(node, [node.body])

    def visit_ClassDef(self, node: ast.ClassDef) -> None:
        self._define(node)
        self._each([*node.decorator_list, *node.bases, *node.keywords])
        self._inside("class", [*getattr(node, "type_params", ()), *node.body])

    def _comprehension(self, node: ast.AST, results: Sequence[ast.AST]) -> None:
        first, *others = node.generators  # type: ignore[attr-defined]
        self.visit(first.iter)
        self._inside("comprehension", [first.target, *first.ifs, *others, *results])

    def visit_ListComp(self, node: ast.ListComp | ast.SetComp | ast.GeneratorExp) -> None:
        self._comprehension(node, [node.elt])

    visit_SetComp = visit_GeneratorExp = visit_ListComp

    def visit_DictComp(self, node: ast.DictComp) -> None:
        self._comprehension(node, [node.key, node.value])

    def visit_Global(self, node: ast.Global | ast.Nonlocal) -> None:
        self.declared.update(node.names)

    visit_Nonlocal = visit_Global

    def visit_alias(self, node: ast.alias) -> None:
        self._import(node.asname or node.name.partition(".")[0])

    def generic_visit(self, node: ast.AST) -> None:
        """Register names that other nodes bind by a string field."""
        for attribute in ("name", "rest"):
            name = getattr(node, attribute, None)
            if isinstance(name, str):
                self._import(name)
        super().generic_visit(node)
