"""Texts of the HTML report: diffs from edits, and fair cuts where there is not room for all."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup, escape

from ..mutation import Edit, unified


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
    """Return a slot's edits as a unified diff, one hunk an edit, without line numbers."""
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
    """Return a diff as marked-up lines: ``del`` and ``ins`` runs between plain ones."""
    tags, run = {"-": "del", "+": "ins"}, ""
    parts: list[Markup] = []
    lines: list[str] = []
    for line in [*text.split("\n"), None]:
        kind = "" if line is None else tags.get(line[:1], "")
        if line is None or kind != run:
            if lines:
                block = escape("\n".join([*lines, ""]))
                parts.append(Markup(f"<{run}>{block}</{run}>") if run else block)
            lines, run = [], kind
        if line is not None:
            lines.append(line)
    return Markup("").join(parts)


def weight(text: str) -> int:
    """Return the bytes that `text` takes on the page."""
    return len(str(escape(text)).encode("utf-8", "replace"))


def head(text: str, cap: int) -> str:
    """Return the beginning of `text`, at most `cap` bytes of it, and a sign if more was there."""
    return text if weight(text) <= cap else text[: _fitting(text, cap)] + "\n…"


def tail(text: str, cap: int) -> str:
    """Return the end of `text`, at most `cap` bytes of it, after a sign if more was there."""
    return text if weight(text) <= cap else "…\n" + text[len(text) - _fitting(text[::-1], cap) :]


def _fitting(text: str, cap: int) -> int:
    """How many characters from the start take at most `cap` bytes."""
    low, high = 0, min(cap, len(text))
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if weight(text[:middle]) <= cap else (low, middle - 1)
    return low
