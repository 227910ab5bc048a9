"""The outline of a module: what a reader must know to call it."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import pytest_autoresearch
from pytest_autoresearch.source.outline import outline

PACKAGE = Path(pytest_autoresearch.__file__).parent

SOURCE = '''
"""A module."""
import os

SIZE = 8  # a constant
LONG = (%s)
folder = os.getcwd()


class Reader(Base):
    """Reads."""

    LIMIT = 3

    def __init__(self, path: str, *, size=1) -> None:
        self.path = path

    async def next(self):
        """Return the next.

        Or none.
        """
        return None

    def _hidden(self): ...


def _private(): ...
'''.replace("%s", ", ".join(map(str, range(200))))


def test_outline_holds_docstring_constants_and_signatures() -> None:
    assert outline(SOURCE) == (
        '"""A module."""\nSIZE = 8\n\nclass Reader(Base):\n    """Reads."""\n    LIMIT = 3\n\n'
        "    def __init__(self, path: str, *, size=1) -> None:\n        ...\n\n"
        '    async def next(self):\n        """Return the next."""'
    )


@pytest.mark.parametrize("path", sorted(PACKAGE.glob("*/*.py")), ids=lambda path: path.name)
def test_outline_of_a_real_module_names_all_that_is_public(path: Path) -> None:
    source = path.read_text()
    shown = outline(source)
    assert len(shown) <= len(source)
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            assert f" {node.name}" in shown


def test_text_that_does_not_parse_is_shown_as_it_is() -> None:
    assert outline("def (") == "def ("
