"""Remove from a syntax tree what cannot change its behavior, for fingerprints.

Each rewrite is safe for every program, or does nothing: a program is never made equal to one that
can behave differently. Names that show in tracebacks and `repr` only do not count as behavior.
"""

from __future__ import annotations

import ast
import builtins
import re
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Set
from itertools import groupby

from .scopes import Definition, local_names, module_names

_EFFECT_FREE = {
    "abc", "argparse", "array", "base64", "bisect", "cmath", "collections", "contextlib", "copy",
    "csv", "dataclasses", "datetime", "decimal", "enum", "fnmatch", "fractions", "functools",
    "glob", "hashlib", "heapq", "io", "itertools", "json", "math", "numbers", "operator", "os",
    "pathlib", "pprint", "queue", "random", "re", "shutil", "statistics", "string", "struct",
    "sys", "tempfile", "textwrap", "threading", "time", "traceback", "types", "typing", "uuid",
    "warnings", "weakref", "zlib",
}  # fmt: skip
"""Modules of the standard library whose import has no effect but the name it binds."""

_TORCH = {"torch", "torch.nn", "torch.nn.functional"}
"""Loaded together, so that the order of their imports has no effect, but their absence has."""

_READERS = {
    "import_module", "__dict__", "__globals__", "__qualname__", "get_objects", "get_referrers",
}  # fmt: skip
"""Names by which a program may reach its own module, or the names of its definitions."""

_READING_ATTRIBUTES = _READERS | {"__name__", "__class__", "__module__"}

_PLAIN_BASES = {"object", "nn.Module", "torch.nn.Module"}
"""Base classes that do not use the name of a class made from them."""

_PRIVATE = re.compile(r"\b__\w*[^\W_]\b")
"""A name that the compiler changes by the name of the class around it, in its methods."""

_DEAD = (
    ast.Pass, ast.Expr, ast.If, ast.Raise, ast.Constant, ast.UnaryOp, ast.BinOp, ast.Compare,
    ast.BoolOp, ast.Tuple, ast.List, ast.expr_context,
    ast.operator, ast.unaryop, ast.cmpop, ast.boolop,
)  # fmt: skip
"""Nodes of code that binds no name, reads none and makes no generator."""

_OWNERS = (ast.Module, ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def flatten(node: ast.AST) -> None:
    """Remove statements without effect and branches of constant conditions, in place."""
    for child in ast.iter_child_nodes(node):
        flatten(child)
    for name, block in _blocks(node):
        docstring = name == "body" and isinstance(node, _OWNERS)
        _set_block(node, name, _effective(block, docstring))


def _blocks(node: ast.AST) -> Iterator[tuple[str, list[ast.stmt]]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(node, name, None)
        if isinstance(block, list) and block:
            yield name, block


def _set_block(node: ast.AST, name: str, block: list[ast.stmt]) -> None:
    setattr(node, name, block or ([ast.Pass()] if name == "body" else []))


def _effective(block: Iterable[ast.stmt], docstring: bool) -> list[ast.stmt]:
    """Return the statements that have an effect.

    Args:
        block: Statements in which the same is done already.
        docstring: Whether a string at the beginning is a docstring.
    """
    result: list[ast.stmt] = []
    for place, statement in enumerate(block):
        match statement:
            case ast.Pass():
                pass
            case ast.Expr(ast.Constant(str())) if docstring and place == 0:
                result.append(statement)
            case ast.Expr(ast.Constant()):
                pass
            case ast.If(ast.Constant(value), body, orelse):
                live, dead = (body, orelse) if value else (orelse, body)
                if all(isinstance(node, _DEAD) for one in dead for node in ast.walk(one)):
                    result += [one for one in live if not isinstance(one, ast.Pass)]
                else:
                    result.append(statement)
            case _:
                result.append(statement)
    return result


def remove_unused_locals(tree: ast.AST) -> None:
    """Remove assignments of literals to local variables that nothing reads, in place."""
    uses = local_names(tree)
    counts = Counter((scope, node.id) for node, scope in uses)
    _remove(tree, {id(node) for node, scope in uses if counts[scope, node.id] == 1})


def _remove(tree: ast.AST, targets: Container[int]) -> None:
    """Remove assignments of literals to the name nodes with these ids."""
    for node in ast.walk(tree):
        for name, block in _blocks(node):
            _set_block(node, name, [s for s in block if not _is_idle_assignment(s, targets)])


def _is_idle_assignment(statement: ast.stmt, targets: Container[int]) -> bool:
    match statement:
        case ast.Assign([ast.Name() as target], value):
            return id(target) in targets and all(
                isinstance(node, ast.Constant | ast.Tuple | ast.List | ast.expr_context)
                for node in ast.walk(value)
            )
    return False


def sort_imports(body: list[ast.stmt]) -> list[ast.stmt]:
    """Split and sort each sequence of consecutive imports whose order has no effect."""
    result: list[ast.stmt] = []
    for sortable, group in groupby(body, _is_sortable):
        statements = list(group)
        if sortable:
            single = [one for statement in statements for one in _split(statement)]
            names = [_bound(one) for one in single]
            if len(set(names)) == len(names):
                statements = sorted(single, key=ast.dump)
        result += statements
    return result


def _is_sortable(statement: ast.stmt) -> bool:
    match statement:
        case ast.Import(aliases):
            return all(_is_known(alias.name) for alias in aliases)
        case ast.ImportFrom(module=str(module), names=aliases, level=0):
            return _is_known(module) and all(alias.name != "*" for alias in aliases)
    return False


def _is_known(module: str) -> bool:
    return module in _EFFECT_FREE or module in _TORCH


def _split(statement: ast.stmt) -> Iterator[ast.stmt]:
    if isinstance(statement, ast.Import):
        yield from (ast.Import([alias]) for alias in statement.names)
    elif isinstance(statement, ast.ImportFrom):
        yield from (ast.ImportFrom(statement.module, [a], 0) for a in statement.names)


def _bound(statement: ast.stmt) -> str:
    [alias] = statement.names  # type: ignore[attr-defined]
    return str(alias.asname or alias.name.partition(".")[0])


def simplify_module(tree: ast.Module, stem: str, public: Set[str]) -> None:
    """Remove unused imports and constants of a module and rename its definitions, in place.

    Args:
        tree: A program whose names of locals may be changed, too.
        stem: Name by which it could import itself.
        public: Names of the module that other programs use; they use no others.
    """
    words = _words(tree)
    if _reads_itself(tree, stem, words) or _PRIVATE.search(ast.unparse(tree)):
        return
    names = {
        name: nodes
        for name, nodes in module_names(tree).items()
        if name not in public and name not in words and not hasattr(builtins, name)
    }
    _remove(tree, {id(nodes[0]) for nodes in names.values() if len(nodes) == 1})
    used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)} | words | public
    parts = (one for s in tree.body for one in (_split(s) if _is_sortable(s) else [s]))
    tree.body = [s for s in parts if not _is_unused_import(s, used)]
    _rename(tree, {name: nodes for name, nodes in names.items() if _may_rename(name, nodes)})


def _words(tree: ast.AST) -> set[str]:
    """Return the words of strings, attributes and declarations, which may name a definition."""
    words: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Constant(str() as text):
                words.update(re.findall(r"\w+", text))
            case ast.Attribute(attr=name):
                words.add(name)
            case ast.Global(names) | ast.Nonlocal(names):
                words.update(names)
    return words


def _reads_itself(tree: ast.AST, stem: str, words: Set[str]) -> bool:
    """Return whether a program may look up its module or the names of its definitions."""
    if words & _READING_ATTRIBUTES:
        return True
    own = {stem, "__main__"}
    called = {id(node.func) for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(attr="modules") if id(node) not in called:  # as in sys.modules
                return True
            case ast.Name(name) if name in _READERS:
                return True
            case ast.Import(aliases) if any(alias.name in own for alias in aliases):
                return True
            case ast.ImportFrom(module, aliases, level):
                if level or module in own or any(a.name in {*_READERS, "modules"} for a in aliases):
                    return True
    return False


def _is_unused_import(statement: ast.stmt, used: Container[str]) -> bool:
    match statement:
        case ast.Import([ast.alias(module)]) | ast.ImportFrom(module):
            return module in _EFFECT_FREE and _bound(statement) not in used
    return False


def _may_rename(name: str, nodes: Iterable[ast.Name | Definition]) -> bool:
    if name.startswith("__"):
        return False
    for node in nodes:
        if isinstance(node, Definition) and node.decorator_list:
            return False
        if isinstance(node, ast.ClassDef):
            bases = {ast.unparse(base) for base in node.bases}
            if not bases <= _PLAIN_BASES or node.keywords:
                return False
    return True


def _rename(tree: ast.Module, names: dict[str, list[ast.Name | Definition]]) -> None:
    """Rename definitions to ``<g0>``, ``<g1>``, …, whatever the order of the constants.

    Numbers follow the order of appearance outside of the constants, then in the definitions of the
    constants numbered so far. What appears nowhere keeps its name.
    """
    owner = {id(node): name for name, nodes in names.items() for node in nodes}
    definitions: dict[str, list[ast.stmt]] = {}
    others: list[ast.stmt] = []
    for statement in tree.body:
        match statement:
            case ast.Assign([ast.Name(name)]) | ast.AnnAssign(ast.Name(name)) if name in names:
                definitions.setdefault(name, []).append(statement)
            case _:
                others.append(statement)
    numbers: dict[str, int] = {}

    def number(statements: Iterable[ast.stmt]) -> None:
        for statement in statements:
            for node in ast.walk(statement):
                if (name := owner.get(id(node))) is not None:
                    numbers.setdefault(name, len(numbers))

    number(others)
    waiting = list(numbers)
    while waiting:
        before = len(numbers)
        number(definitions.get(waiting.pop(0), ()))
        waiting += list(numbers)[before:]
    for name, i in numbers.items():
        for node in names[name]:
            setattr(node, "id" if isinstance(node, ast.Name) else "name", f"<g{i}>")
