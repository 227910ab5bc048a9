"""Texts of the HTML report: diffs from edits, and fair cuts where there is not room for all."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from itertools import groupby

from markupsafe import Markup, escape

from ..core.proposal import Edit
from ..source.edits import unified

_WORDS = re.compile(r"[\w.]+|[^\w.]")


def fair_share(lengths: Sequence[int], room: int) -> int:
    """Return the largest cap under which texts of these lengths fit into `room` together.

    Short texts stay whole; only the long ones are cut, all to the same length.
    """
    left = room
    for i, length in enumerate(sorted(lengths)):
        share = left // (len(lengths) - i)
        if length > share:
            return max(0, share)
        left -= length
    return max(lengths, default=0)


def diff(edits: Sequence[Edit]) -> str:
    """Return an attempt's edits as a unified diff, one hunk an edit, without line numbers."""
    parts: list[str] = []
    for edit in edits:
        lines = unified({edit.file: edit.search}, {edit.file: edit.replace}).splitlines()
        body = [line for line in lines[2:] if not line.startswith("\\")]
        head = f"@@ {edit.file} @@"
        if head not in parts:
            parts.append(head)
        parts += [line for line in body if not line.startswith("@@")]
    return "\n".join(parts)


def coloured(text: str) -> Markup:
    """Return a diff as marked-up lines: ``del`` and ``ins`` runs between plain ones.

    Where as many lines came as went, what differs within a line is marked by ``b``.
    """
    runs = [(tag, list(lines)) for tag, lines in groupby(text.split("\n"), _tag)]
    marked: list[str] = []
    for i, (tag, lines) in enumerate(runs):
        step = {"del": 1, "ins": -1}.get(tag)
        other = runs[i + step] if step and 0 <= i + step < len(runs) else ("", [])
        if step and other[0] in ("del", "ins") and len(other[1]) == len(lines):
            inside = "".join(_differing(a, b) + "\n" for a, b in zip(lines, other[1], strict=True))
        else:
            inside = str(escape("".join(line + "\n" for line in lines)))
        marked.append(f"<{tag}>{inside}</{tag}>" if tag else inside)
    return Markup("".join(marked))


def _tag(line: str) -> str:
    return {"-": "del", "+": "ins"}.get(line[:1], "")


def _differing(line: str, other: str) -> str:
    """Return `line`, escaped, with the words between its common ends with `other` marked."""
    words, facing = _WORDS.findall(line[1:]), _WORDS.findall(other[1:])
    start = _common(words, facing)
    end = _common(words[start:][::-1], facing[start:][::-1])
    parts = (words[:start], words[start : len(words) - end], words[len(words) - end :])
    before, inside, after = (escape("".join(part)) for part in parts)
    if start + end == 0 or not inside:
        return str(escape(line))
    return f"{line[0]}{before}<b>{inside}</b>{after}"


def _common(words: Sequence[str], others: Sequence[str]) -> int:
    """How many words from the start are the same."""
    pairs = zip(words, others, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(words), len(others)))


def weight(text: str, show: Callable[[str], Markup] = escape) -> int:
    """Return the bytes that `text` takes on the page as `show` puts it there."""
    return len(str(show(text)).encode("utf-8", "replace"))


def head(text: str, cap: int, show: Callable[[str], Markup] = escape) -> str:
    """Return the beginning of `text`, at most `cap` bytes of it, and a sign if more was there."""
    if weight(text, show) <= cap:
        return text
    return text[: _fitting(lambda n: text[:n], len(text), cap, show)] + "\n…"


def tail(text: str, cap: int) -> str:
    """Return the end of `text`, at most `cap` bytes of it, after a sign if more was there."""
    if weight(text) <= cap:
        return text
    size = len(text)
    return "…\n" + text[size - _fitting(lambda n: text[size - n :], size, cap, escape) :]


def _fitting(part: Callable[[int], str], size: int, cap: int, show: Callable[[str], Markup]) -> int:
    """How many characters of a text's part take at most `cap` bytes."""
    low, high = 0, min(cap, size)
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if weight(part(middle), show) <= cap else (low, middle - 1)
    return low
