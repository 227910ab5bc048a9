"""Edits as text: SEARCH/REPLACE blocks, and unified diffs as a second form.

A proposal file or an answer of a model is a title line, a hypothesis, and blocks::

    Title: halve the batch
    Hypothesis: more optimiser steps in the same budget

    train.py
    <<<<<<< SEARCH
    TOTAL_BATCH_SIZE = 2**10
    =======
    TOTAL_BATCH_SIZE = 2**9
    >>>>>>> REPLACE
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..mutation import Edit, EditError

_OPEN, _MIDDLE, _CLOSE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"
_FIELD = re.compile(r"^(title|hypothesis)\s*:\s*(.+)$", re.IGNORECASE | re.MULTILINE)
_HUNK = re.compile(r"^@@ -\d+(?:,\d+)? \+\d+(?:,\d+)? @@")


@dataclass(frozen=True)
class Parsed:
    """A proposal as written.

    Attributes:
        title: Its title, or ''.
        hypothesis: Why it should help, or ''.
        edits: At least one.
    """

    title: str
    hypothesis: str
    edits: tuple[Edit, ...]


def parse(text: str, default_file: str = "") -> Parsed:
    """Read blocks, or failing those a unified diff.

    Args:
        text: What was written.
        default_file: File of blocks that name none.

    Raises:
        EditError: There is neither, or one of them is malformed; the message says which.
    """
    text = text.replace("\r\n", "\n")
    if any(line.rstrip() == _OPEN for line in text.split("\n")):
        edits = tuple(_blocks(text, default_file))
    elif any(_HUNK.match(line) for line in text.split("\n")):
        edits = tuple(_hunks(text))
    else:
        raise EditError("there is no SEARCH/REPLACE block and no unified diff in it")
    head = text.split(_OPEN)[0].split("\n--- ")[0]
    fields = {key.lower(): value.strip() for key, value in _FIELD.findall(head)}
    return Parsed(fields.get("title", "")[:100], fields.get("hypothesis", ""), edits)


def _blocks(text: str, default_file: str) -> Iterator[Edit]:
    lines = text.split("\n")
    number, i = 0, 0
    while i < len(lines):
        if lines[i].rstrip() != _OPEN:
            i += 1
            continue
        number += 1
        file = _file_before(lines, i) or default_file
        if not file:
            raise EditError(f"block {number} has no file name on the line before it")
        try:
            middle = _index(lines, _MIDDLE, i + 1)
            close = _index(lines, _CLOSE, middle + 1)
        except ValueError:
            raise EditError(
                f"block {number} is not closed; it needs {_MIDDLE} and {_CLOSE}"
            ) from None
        yield Edit(file, _join(lines[i + 1 : middle]), _join(lines[middle + 1 : close]))
        i = close + 1


def _index(lines: list[str], marker: str, start: int) -> int:
    for i in range(start, len(lines)):
        if lines[i].rstrip() == marker:
            return i
        if lines[i].rstrip() == _OPEN:
            break
    raise ValueError(marker)


def _join(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _file_before(lines: list[str], i: int) -> str:
    for line in reversed(lines[max(0, i - 2) : i]):
        name = line.strip().strip("`*#: ")
        if name and not name.startswith(("<", ">", "=")) and re.fullmatch(r"[\w./-]+", name):
            return name
    return ""


def _hunks(text: str) -> Iterator[Edit]:
    """Read a unified diff; line numbers and counts are ignored, contexts must be unique."""
    file = ""
    old: list[str] = []
    new: list[str] = []
    for line in [*text.split("\n"), "@@ -0 +0 @@"]:
        if line.startswith("+++ "):
            file = re.sub(r"^b/", "", line[4:].split("\t")[0].strip())
        elif _HUNK.match(line) or line.startswith(("--- ", "diff ")):
            if old or new:
                yield Edit(file, _join(old), _join(new))
            old, new = [], []
        elif file and line[:1] in ("-", "+", " "):
            if line[0] != "+":
                old.append(line[1:])
            if line[0] != "-":
                new.append(line[1:])
    if not file:
        raise EditError("the diff names no file (no +++ line)")


def format_blocks(edits: Iterable[Edit]) -> str:
    """Return the blocks that `parse` reads back, for edits made of whole lines."""
    blocks = []
    for edit in edits:
        search = edit.search if edit.search.endswith("\n") else edit.search + "\n"
        replace = edit.replace
        if replace and not replace.endswith("\n"):
            replace += "\n"
        blocks.append(f"{edit.file}\n{_OPEN}\n{search}{_MIDDLE}\n{replace}{_CLOSE}\n")
    return "\n".join(blocks)
