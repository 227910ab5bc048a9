"""The outline of a module: its docstring, constants and signatures."""

from __future__ import annotations

import ast
from functools import lru_cache

from .fingerprint import UNREADABLE, parse_file

_CONSTANT_CHARACTERS = 300


@lru_cache(maxsize=8)
def outline(source: str) -> str:
    """Return docstring, constants, classes and functions of a module, without bodies.

    Private functions are left out, and constants that are long or no literals in capitals. Text
    that is no Python module is returned as it is.
    """
    try:
        tree = parse_file(source)
    except UNREADABLE:
        return source
    parts = [f'"""{doc}"""'] if (doc := ast.get_docstring(tree)) else []
    for node in tree.body:
        parts += _lines(node, source, "")
    return "\n".join(parts)


def _lines(node: ast.stmt, source: str, indent: str) -> list[str]:
    if isinstance(node, ast.Assign | ast.AnnAssign):
        targets = node.targets if isinstance(node, ast.Assign) else [node.target]
        text = ast.get_source_segment(source, node) or ""
        capital = all(isinstance(t, ast.Name) and t.id.isupper() for t in targets)
        return [indent + text] if capital and len(text) <= _CONSTANT_CHARACTERS else []
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return []
    if node.name.startswith("_") and node.name != "__init__":
        return []
    head = f"{indent}{_signature(node)}:"
    doc = (ast.get_docstring(node) or "").partition("\n")[0]
    inner = f"{indent}    "
    body = [f'{inner}"""{doc}"""'] if doc else []
    if isinstance(node, ast.ClassDef):
        for member in node.body:
            body += _lines(member, source, inner)
    return ["", head, *(body or [f"{inner}..."])]


def _signature(node: ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) -> str:
    if isinstance(node, ast.ClassDef):
        bases = ", ".join(map(ast.unparse, node.bases))
        return f"class {node.name}({bases})" if bases else f"class {node.name}"
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    kind = "async def" if isinstance(node, ast.AsyncFunctionDef) else "def"
    return f"{kind} {node.name}({ast.unparse(node.args)}){returns}"
