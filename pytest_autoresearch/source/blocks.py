"""Read and write proposals as text: SEARCH/REPLACE blocks, a unified diff or whole files.

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
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from email.header import decode_header, make_header
from itertools import pairwise

from ..core.proposal import Edit, EditError
from ..core.text import one_line
from . import patches
from .edits import edits_between, occurrences

_OPEN, _MIDDLE, _CLOSE = "<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"

_OPENING = re.compile(r"^(\s*)(<{5,9}) ?(?:SEARCH|ORIGINAL)\b:?(?:[ \t]+(\S+))?\s*$", re.IGNORECASE)
"""An opening mark, with the variants that models write: indent, length, word, name of the file."""

_CLOSING = re.compile(r"^(\s*)(>{5,9}) ?(?:REPLACE|UPDATED)\s*$", re.IGNORECASE)

_FIELD = re.compile(
    r"^[^\w\n]{0,4}(title|hypothesis)[^\w\n]{0,2}:[^\w\n]{0,3}(\S.*)$", re.IGNORECASE | re.MULTILINE
)

_LABEL = re.compile(r"^(?:file|path|in)\s*:?\s+(?=\S+$)", re.IGNORECASE)

_STRAY = re.compile(r"^\s*(?:<{4,}|>{4,})")

_FENCE = re.compile(r"^\s*(?:```+|~~~+)\s*[\w+-]*\s*$")

_ELISION = re.compile(r"^\s*#.*(?:\.\.\.|…|\bunchanged\b|\b(?:rest|remainder) of\b)", re.IGNORECASE)
"""A comment that stands for lines that were left out."""

_THINK = r"(?:<(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[THINK\]|◁think▷)"
_THOUGHT = (
    r"(?:(?<![\"'`])(?:</(?:\w+:)?(?:think|thinking|thought|reasoning)>|\[/THINK\]|◁/think▷)(?![\"'`])"
    r"|<\|channel\|>final[^\n]*?<\|message\|>)"
)
"""Marks around thoughts that servers without a parser for a model leave in its answer; quoted ones
are talked about, or part of a program."""

_THOUGHTS = re.compile(rf"\A(?:\s*{_THINK}.*?{_THOUGHT})+", re.IGNORECASE | re.DOTALL)
_END_OF_THOUGHTS = re.compile(_THOUGHT, re.IGNORECASE)
_THINKING = re.compile(rf"^\s*{_THINK}", re.IGNORECASE | re.MULTILINE)


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


def without_thoughts(text: str) -> str:
    """Return an answer without the reasoning that precedes it.

    The opening mark may be missing: the templates of some models write it into the prompt.

    Raises:
        EditError: Nothing follows the thoughts, or they and the answer alternate.
    """
    *thoughts, answer = _END_OF_THOUGHTS.split(_THOUGHTS.sub("", text))
    if any(map(_THINKING.search, thoughts)):
        raise EditError("thoughts and answer alternate; send the answer after all thoughts")
    if _THINKING.match(answer):
        raise EditError("the thoughts have no end, and no answer follows them")
    return answer


def parse(text: str, files: Mapping[str, str], whole: bool = False) -> Parsed:
    """Parse blocks or, if there are none, a unified diff.

    Args:
        text: The proposal, without thoughts.
        files: The editable files that it is for, path to text.
        whole: Whether fenced whole files are accepted if there is neither.

    Raises:
        EditError: There is none of these, or a block or hunk is malformed; the message says which.
    """
    lines = text.replace("\r\n", "\n").split("\n")
    if any(map(_OPENING.match, lines)):
        edits, prose = _read_blocks(lines, files)
        _refuse_leftovers(prose)
    elif any(map(patches.HUNK.match, lines)):
        edits, prose = patches.read(lines, files)
    elif whole:
        edits, prose = _read_whole(lines, files)
    else:
        _refuse_leftovers(text)
        raise EditError("there is no SEARCH/REPLACE block and no unified diff in the text")
    title, hypothesis = fields(prose)
    return Parsed(title or _subject(prose), hypothesis, edits, prose)


def fields(prose: str) -> tuple[str, str]:
    """Return the title (at most 100 characters) and the hypothesis stated in `prose`, or ''."""
    values: dict[str, str] = {}
    for key, value in _FIELD.findall(prose):
        values.setdefault(key.lower(), value.strip().strip("*").strip())
    return values.get("title", "")[:100], values.get("hypothesis", "")


def _subject(prose: str) -> str:
    """Return the subject of a mail that ``git format-patch`` wrote, or ''."""
    match = re.search(r"^Subject:[ \t]*(.+(?:\n[ \t].+)*)", prose, re.MULTILINE)
    subject = one_line(make_header(decode_header(match[1]))) if match else ""
    return re.sub(r"^(?:\[[^\]]*\]\s*)+", "", subject)[:100]


# SEARCH/REPLACE blocks


def _read_blocks(lines: list[str], files: Mapping[str, str]) -> tuple[tuple[Edit, ...], str]:
    edits: list[Edit] = []
    prose: list[str] = []
    i = start = 0
    while i < len(lines):
        if (opening := _OPENING.match(lines[i])) is None:
            prose.append(lines[i])
            i += 1
            continue
        number = len(edits) + 1
        last = edits[-1].file if edits else next(iter(files)) if len(files) == 1 else ""
        file = _path(opening[3] or "") or _file_of(lines[start:i], files) or last
        if not file:
            raise EditError(f"block {number} has no file name on the line before it")
        middle, close = _bounds(lines, i, number, opening)
        search, replace = lines[i + 1 : middle], lines[middle + 1 : close]
        edits.append(_edit(file, search, replace, opening[1], number, files))
        i = start = close + 1
    return tuple(edits), "\n".join(prose)


def _refuse_leftovers(prose: str) -> None:
    """Reject lines outside of the blocks that look like part of one, so that no block is lost."""
    for line in prose.split("\n"):
        if _STRAY.match(line):
            raise EditError(
                f"the line {line.strip()[:40]!r} belongs to no block; each has lines {_OPEN}, "
                f"{_MIDDLE} and {_CLOSE}, from the first column"
            )
        if line.startswith("+++ ") or line.rstrip() == _MIDDLE or _THINKING.match(line):
            raise EditError(f"the line {line[:40]!r} is outside of the blocks; send blocks only")


def _bounds(lines: list[str], start: int, number: int, opening: re.Match[str]) -> tuple[int, int]:
    """Return the indices of a block's middle and closing lines, written like its opening."""
    indent, length, middle = opening[1], len(opening[2]), 0
    for i in range(start + 1, len(lines)):
        closing = _CLOSING.match(lines[i])
        if lines[i].rstrip() == indent + "=" * length:
            if middle:
                raise EditError(
                    f"block {number} has two lines {_MIDDLE} and is ambiguous; "
                    "choose a passage without one, or send a unified diff"
                )
            middle = i
        elif closing and middle and closing.groups() == (indent, ">" * length):
            return middle, i
        elif closing or _OPENING.match(lines[i]):
            break
    raise EditError(f"block {number} is not closed; it needs {_MIDDLE} and {_CLOSE}")


def _edit(
    file: str,
    search: Sequence[str],
    replace: Sequence[str],
    indent: str,
    number: int,
    files: Mapping[str, str],
) -> Edit:
    """Return a block's edit, without the indent of its marks, which a list adds to every line."""
    written = Edit(file, patches.join(search), patches.join(replace))
    if not indent:
        return written
    if any(line.strip() and not line.startswith(indent) for line in (*search, *replace)):
        raise EditError(f"block {number} is indented unevenly; send it from the first column")
    old, new = ([line[len(indent) :] for line in part] for part in (search, replace))
    shifted = Edit(file, patches.join(old), patches.join(new))
    places = [len(occurrences(files.get(file, ""), one.search)) for one in (written, shifted)]
    if all(places):
        raise EditError(f"block {number} matches at two indents; send it from the first column")
    return written if places[0] else shifted


def _file_of(above: Sequence[str], files: Mapping[str, str]) -> str:
    """Return the file named in the lines between a block and the one before it, or ''.

    Raises:
        EditError: They name several.
    """
    nearest = [line for line in above[-3:] if line.strip() and not _FENCE.match(line)]
    if nearest and (path := _path(nearest[-1])):
        return path
    text = "\n".join(above)
    named = [f for f in files if re.search(rf"(?<![\w/-])(?:\./)?{re.escape(f)}(?![\w/-])", text)]
    if len(named) > 1:
        raise EditError(
            f"the lines above a block name {' and '.join(named)}; write its own before it"
        )
    return named[0] if named else ""


def _path(line: str) -> str:
    """Return the path that a line consists of, or ''."""
    name = _LABEL.sub("", line.strip().strip("`*#: "), count=1).strip("`*: ").removeprefix("./")
    return name if re.fullmatch(r"[\w./-]*\w\.\w+|[\w.-]+/[\w./-]+", name) else ""


def format_blocks(edits: Iterable[Edit]) -> str:
    """Format edits of whole lines, without markers in them, as blocks that `parse` accepts."""
    blocks = []
    for edit in edits:
        search = edit.search if edit.search.endswith("\n") else edit.search + "\n"
        replace = edit.replace + "\n" * bool(edit.replace and not edit.replace.endswith("\n"))
        blocks.append(f"{edit.file}\n{_OPEN}\n{search}{_MIDDLE}\n{replace}{_CLOSE}\n")
    return "\n".join(blocks)


# Whole files


def _read_whole(lines: list[str], files: Mapping[str, str]) -> tuple[tuple[Edit, ...], str]:
    """Read fenced files, each with its name on the line before unless there is one editable file.

    A file ends with the last closing fence before the next file, since it may hold fences itself.
    """
    edits: list[Edit] = []
    prose: list[str] = []
    fences = [i for i, line in enumerate(lines) if _FENCE.match(line)]
    names = {i: _path(next((x for x in reversed(lines[:i]) if x.strip()), "")) for i in fences}
    starts = [i for i in fences if names[i] in files]
    if not starts and len(files) == 1:
        starts = fences[:1]
    done = 0
    for start, following in pairwise([*starts, len(lines)]):
        file = names[start] if names[start] in files else next(iter(files))
        mark = re.sub(r"[^`~].*", "", lines[start].strip())
        ends = [i for i in range(start + 1, following) if lines[i].strip() == mark]
        if not ends:
            raise EditError(f"the fence around {file} is not closed; send the whole file")
        text = lines[start + 1 : ends[-1]]
        known = {line.strip() for line in files[file].splitlines()}
        for line in text:
            if _ELISION.match(line) and line.strip() not in known:
                raise EditError(f"{line.strip()[:60]!r} stands for lines; send the whole file")
        if any(edit.file == file for edit in edits):
            raise EditError(f"there are two texts of {file}; send it once, whole")
        edits += edits_between(files[file].replace("\r\n", "\n"), patches.join(text), file)
        prose += lines[done:start]
        done = ends[-1] + 1
    if not edits:
        raise EditError(
            "there is no changed file; write its name on a line, then the whole file between "
            "fences (```)"
        )
    return tuple(edits), "\n".join([*prose, *lines[done:]])
