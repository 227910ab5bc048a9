"""Texts of the HTML report: diffs from edits, and cuts to a fixed length."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import groupby

from markupsafe import Markup, escape

from ..core.proposal import Edit
from ..source.edits import unified

_WORDS = re.compile(r"[\w.]+|[^\w.]")


def diff(edits: Sequence[Edit]) -> str:
    """Return edits as a unified diff, one hunk an edit, without line numbers."""
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
    """Mark up a diff: ``del`` and ``ins`` around removed and added lines.

    Where as many lines were added as removed, ``b`` marks the words that differ within a line.
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
    """Return `line`, escaped, its words marked that differ from `other`."""
    words, facing = _WORDS.findall(line[1:]), _WORDS.findall(other[1:])
    start = _common(words, facing)
    end = _common(words[start:][::-1], facing[start:][::-1])
    parts = (words[:start], words[start : len(words) - end], words[len(words) - end :])
    before, inside, after = (escape("".join(part)) for part in parts)
    if start + end == 0 or not inside:
        return str(escape(line))
    return f"{line[0]}{before}<b>{inside}</b>{after}"


def _common(words: Sequence[str], others: Sequence[str]) -> int:
    """Count the words that both begin with."""
    pairs = zip(words, others, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(words), len(others)))


def head(text: str, cap: int) -> str:
    """Return the first `cap` characters of `text`, and a mark if there were more."""
    return text if len(text) <= cap else text[:cap] + "\n…"


def tail(text: str, cap: int) -> str:
    """Return the last `cap` characters of `text`, after a mark if there were more."""
    return text if len(text) <= cap else "…\n" + text[-cap:]
