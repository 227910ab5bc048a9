"""Read and write proposals as text: SEARCH/REPLACE blocks or a unified diff.

A proposal file or a model's answer holds a title, a hypothesis and blocks::

    Title: halve the batch
    Hypothesis: more optimizer steps in the same budget

    train.py
    <<<<<<< SEARCH
    TOTAL_BATCH_SIZE = 2**10
    =======
    TOTAL_BATCH_SIZE = 2**9
    >>>>>>> REPLACE

Ambiguous text is rejected: a repair costs a request, a wrong guess a training.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass, field

from ..core.proposal import Edit, EditError

_OPEN, _MIDDLE, _CLOSE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"

_FIELD = re.compile(
    r"^[^\w\n]{0,4}(title|hypothesis)[^\w\n]{0,2}:[^\w\n]{0,3}(\S.*)$", re.IGNORECASE | re.MULTILINE
)

_HUNK = re.compile(r"^@@(?: .*)?$")

_LABEL = re.compile(r"^(?:file|path|in)\s*:?\s+(?=\S+$)", re.IGNORECASE)

_STRAY = re.compile(r"^\s*(?:<{4,}|>{4,})")

_FENCE = re.compile(r"^\s*(?:```+|~~~+)\s*[\w+-]*\s*$")


@dataclass(frozen=True)
class Parsed:
    """A parsed proposal.

    Attributes:
        title: One line, or ''.
        hypothesis: Why it should help, or ''.
        edits: At least one.
        prose: The text outside of the edits.
    """

    title: str
    hypothesis: str
    edits: tuple[Edit, ...]
    prose: str = field(default="", compare=False)


def parse(text: str, default_file: str = "") -> Parsed:
    """Parse blocks or, if there are none, a unified diff.

    Args:
        text: The proposal.
        default_file: File of blocks that name none.

    Raises:
        EditError: There is neither, or a block or hunk is malformed; the message says which.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if any(line.rstrip() == _OPEN for line in lines):
        edits, prose = _read_blocks(lines, default_file)
        _refuse_leftovers(prose)
    elif any(_HUNK.match(line) for line in lines):
        edits, prose = _read_diff(lines)
    else:
        raise EditError("there is no SEARCH/REPLACE block and no unified diff in the text")
    title, hypothesis = fields(prose)
    return Parsed(title, hypothesis, edits, prose)


def fields(prose: str) -> tuple[str, str]:
    """Return the title (at most 100 characters) and the hypothesis stated in `prose`, or ''."""
    values: dict[str, str] = {}
    for key, value in _FIELD.findall(prose):
        values.setdefault(key.lower(), value.strip().strip("*").strip())
    return values.get("title", "")[:100], values.get("hypothesis", "")


# SEARCH/REPLACE blocks


def _read_blocks(lines: list[str], default_file: str) -> tuple[tuple[Edit, ...], str]:
    edits: list[Edit] = []
    prose: list[str] = []
    i = 0
    while i < len(lines):
        if lines[i].rstrip() != _OPEN:
            prose.append(lines[i])
            i += 1
            continue
        number = len(edits) + 1
        file = _file_before(lines[max(0, i - 3) : i]) or default_file
        if not file:
            raise EditError(f"block {number} has no file name on the line before it")
        middle, close = _bounds(lines, i, number)
        edits.append(Edit(file, _join(lines[i + 1 : middle]), _join(lines[middle + 1 : close])))
        i = close + 1
    return tuple(edits), "\n".join(prose)


def _refuse_leftovers(prose: str) -> None:
    """Reject lines outside of the blocks that look like part of one, so that no block is lost."""
    for line in prose.split("\n"):
        if _STRAY.match(line):
            raise EditError(
                f"the line {line.strip()[:40]!r} belongs to no block; each has lines {_OPEN}, "
                f"{_MIDDLE} and {_CLOSE}, from the first column"
            )
        if line.startswith("+++ ") or line.rstrip() == _MIDDLE:
            raise EditError(f"the line {line[:40]!r} is outside of the blocks; send blocks only")


def _bounds(lines: list[str], opening: int, number: int) -> tuple[int, int]:
    """Return the indices of a block's middle and closing lines."""
    middle = 0
    for i in range(opening + 1, len(lines)):
        mark = lines[i].rstrip()
        if mark == _MIDDLE:
            if middle:
                raise EditError(
                    f"block {number} has two lines {_MIDDLE} and is ambiguous; "
                    "choose a passage without one, or send a unified diff"
                )
            middle = i
        elif mark == _CLOSE and middle:
            return middle, i
        elif mark in (_OPEN, _CLOSE):
            break
    raise EditError(f"block {number} is not closed; it needs {_MIDDLE} and {_CLOSE}")


def _join(lines: list[str]) -> str:
    return "".join(line + "\n" for line in lines)


def _file_before(lines: list[str]) -> str:
    """Return the file named in the lines above a block, skipping fences and empty lines."""
    for line in reversed(lines):
        if _FENCE.match(line) or not line.strip():
            continue
        name = _LABEL.sub("", line.strip().strip("`*#: "), count=1).strip("`*: ")
        return name if re.fullmatch(r"[\w./-]*\w\.\w+|[\w.-]+/[\w./-]+", name) else ""
    return ""


# Unified diffs


def _read_diff(lines: list[str]) -> tuple[tuple[Edit, ...], str]:
    """Parse a unified diff; line numbers and counts are ignored, contexts must be unique."""
    edits: list[Edit] = []
    prose: list[str] = []
    file, old, new, blanks, inside = "", list[str](), list[str](), 0, False

    def end() -> None:
        nonlocal blanks
        if old != new:
            edits.append(Edit(file, _join(old), _join(new)))
        old.clear()
        new.clear()
        blanks = 0

    for i, line in enumerate(lines):
        following = lines[i + 1] if i + 1 < len(lines) else ""
        if line.startswith("--- ") and following.startswith("+++ "):
            end()
            inside = False
        elif line.startswith("+++ "):
            if not (i and lines[i - 1].startswith("--- ")):
                raise EditError(f"the line {line[:40]!r} of the diff has no line --- before it")
            file = re.sub(r"^b/", "", line[4:].split("\t")[0].strip())
        elif _HUNK.match(line):
            end()
            inside = True
            if not file:
                raise EditError("the diff names no file (no +++ line)")
        elif inside and not line:
            blanks += 1  # a context line, unless it ends the hunk
        elif inside and line[0] in " +-":
            old.extend([""] * blanks)
            new.extend([""] * blanks)
            blanks = 0
            if line[0] != "+":
                old.append(line[1:])
            if line[0] != "-":
                new.append(line[1:])
        elif not line.startswith("\\"):
            if file and line.startswith(("+", "-")):
                raise EditError(f"the line {line[:40]!r} of the diff has no @@ line before it")
            end()
            inside = False
            prose.append(line)
    end()
    if not edits:
        raise EditError("the diff has a hunk header, but no line is added or removed")
    return tuple(edits), "\n".join(prose)


def format_blocks(edits: Iterable[Edit]) -> str:
    """Format edits of whole lines, without markers in them, as blocks that `parse` accepts."""
    blocks = []
    for edit in edits:
        search = edit.search if edit.search.endswith("\n") else edit.search + "\n"
        replace = edit.replace + "\n" * bool(edit.replace and not edit.replace.endswith("\n"))
        blocks.append(f"{edit.file}\n{_OPEN}\n{search}{_MIDDLE}\n{replace}{_CLOSE}\n")
    return "\n".join(blocks)
