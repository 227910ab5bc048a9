"""Apply and compute edits: pure functions on text.

The search text of an edit must occur exactly once. Similarity is never used: on published
experiments, edit-distance matching applied 1 edit of 24 to the wrong place.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence

from ..core.proposal import Edit, EditError

COMPARED = 200
"""Maximum characters of a line that are compared for the nearest lines."""


def apply(files: Mapping[str, str], edits: Sequence[Edit]) -> dict[str, str]:
    """Apply edits in order.

    Each search text must match exactly once; failing that, once up to trailing space, then once up
    to a uniform indent (which is then added to the replacement).

    Args:
        files: Editable files, path to text.
        edits: What to change.

    Returns:
        All files, changed and unchanged. Line endings and a missing last newline are kept.

    Raises:
        EditError: A file is not editable, a search text is absent or ambiguous, or a replacement
            is not valid UTF-8.
    """
    result = dict(files)
    for number, edit in enumerate(edits, 1):
        if edit.file not in result:
            raise EditError(
                f"edit {number}: {edit.file!r} may not be changed; editable: {', '.join(files)}"
            )
        try:
            edit.replace.encode()
            result[edit.file] = _replace(result[edit.file], edit)
        except UnicodeEncodeError as error:
            raise EditError(
                f"edit {number} of {edit.file} is not valid UTF-8: {error.reason}"
            ) from None
        except EditError as error:
            raise EditError(f"edit {number} of {edit.file}: {error}") from None
    return result


def _replace(text: str, edit: Edit) -> str:
    if not edit.search.strip():
        raise EditError("the search text is empty")
    crlf = "\r\n" in text
    search, replacement = _newlines(edit.search, crlf), _newlines(edit.replace, crlf)
    found = occurrences(text, search)
    if len(found) == 1:
        return text[: found[0]] + replacement + text[found[0] + len(search) :]
    if found:
        raise EditError(f"the search text occurs {len(found)} times; give more lines around it")
    return _replace_lines(text, search, replacement)


def occurrences(text: str, search: str) -> list[int]:
    """Return the offsets of `search`; whole lines match only at the start of a line."""
    found, at = [], text.find(search)
    while at >= 0:
        if not search.endswith("\n") or at == 0 or text[at - 1] == "\n":
            found.append(at)
        at = text.find(search, at + 1)
    return found


def _newlines(text: str, crlf: bool) -> str:
    text = text.replace("\r\n", "\n")
    return text.replace("\n", "\r\n") if crlf else text


def _replace_lines(text: str, search: str, replacement: str) -> str:
    """Match whole lines up to trailing space, then up to one common indent."""
    lines, wanted = text.splitlines(keepends=True), search.splitlines()
    bare = [line.rstrip() for line in lines]
    for shifts in ([_AS_WRITTEN], _shifts(bare, wanted)):
        places = [(i, shift) for shift in shifts for i in _matches(bare, wanted, shift)]
        if len(places) > 1:
            raise EditError(
                f"the search text occurs {len(places)} times; give more lines around it"
            )
        if places:
            [(start, shift)] = places
            end = start + len(wanted)
            block = _indent_all(replacement, shift)
            ending = lines[end - 1][len(lines[end - 1].rstrip("\r\n")) :]
            if block and (not ending or not block.endswith("\n")):
                block = block.removesuffix("\n").removesuffix("\r") + ending
            return "".join(lines[:start]) + block + "".join(lines[end:])
    tabs = "\n\t" in text and "\n " in f"\n{search}"
    note = " (the file is indented with tabs)" if tabs else ""
    raise EditError(
        f"the search text does not occur{note}; the nearest real lines are:\n"
        f"{_nearest(text, search)}"
    )


_Shift = tuple[str, str]
"""White space that is taken from the beginning of each line, and what is put there instead."""

_AS_WRITTEN: _Shift = ("", "")


def _matches(bare: Sequence[str], wanted: Sequence[str], shift: _Shift) -> list[int]:
    """Return the line numbers where the wanted lines, shifted, match."""
    target = [_indent(line.rstrip(), shift) for line in wanted]
    return [i for i in range(len(bare) - len(target) + 1) if bare[i : i + len(target)] == target]


def _shifts(bare: Sequence[str], wanted: Sequence[str]) -> list[_Shift]:
    """Return the shifts to the other indents of the first wanted line in the file."""
    first = next((w.rstrip() for w in wanted if w.strip()), "")
    own, found = _lead(first), set[_Shift]()
    for lead in {_lead(b) for b in bare if b.strip() == first.strip()}:
        if lead.endswith(own):
            found.add(("", lead[: len(lead) - len(own)]))
        elif own.endswith(lead):
            found.add((own[: len(own) - len(lead)], ""))
    return sorted(found - {_AS_WRITTEN})


def _lead(line: str) -> str:
    return line[: len(line) - len(line.lstrip())]


def _indent(line: str, shift: _Shift) -> str:
    remove, add = shift
    if not line.strip():
        return line
    return add + line[len(remove) :] if line.startswith(remove) else "\0" + line


def _indent_all(text: str, shift: _Shift) -> str:
    shifted = [_indent(line, shift) for line in text.splitlines(keepends=True)]
    if any(line.startswith("\0") for line in shifted):
        raise EditError("the replacement cannot be indented like the matching lines")
    return "".join(shifted)


def _nearest(text: str, search: str, context: int = 3) -> str:
    lines = text.splitlines()
    wanted = [line.strip() for line in search.splitlines() if line.strip()]
    matcher = difflib.SequenceMatcher(None, "", wanted[0][:COMPARED])
    best, where = -1.0, 0
    for i, line in enumerate(lines):
        matcher.set_seq1(line.strip()[:COMPARED])
        if (ratio := matcher.quick_ratio()) > best:
            best, where = ratio, i
    start = max(0, where - context)
    return "\n".join(lines[start : where + len(wanted) + context])


def edits_between(before: str, after: str, file: str) -> tuple[Edit, ...]:
    """Return the fewest edits that turn `before` into `after`, each matching exactly once.

    Context grows line by line until a search text is unique; adjacent edits are joined.
    """
    if before == after:
        return ()
    old, new = before.splitlines(keepends=True), after.splitlines(keepends=True)
    matcher = difflib.SequenceMatcher(None, old, new, autojunk=False)
    spans = [list(op[1:]) for op in matcher.get_opcodes() if op[0] != "equal"]
    merged: list[list[int]] = []
    for span in (_grow(old, span, before) for span in spans):
        while merged and span[0] <= merged[-1][1]:
            previous = merged.pop()
            span = [previous[0], max(previous[1], span[1]), previous[2], max(previous[3], span[3])]
        merged.append(span)
    edits = tuple(Edit(file, "".join(old[a:b]), "".join(new[c:d])) for a, b, c, d in merged)
    try:
        if apply({file: before}, edits)[file] == after:
            return edits
    except EditError:
        pass
    return (Edit(file, before, after),) if before else ()


def _grow(old: Sequence[str], span: Sequence[int], before: str) -> list[int]:
    a, b, c, d = span
    while not "".join(old[a:b]).strip() or len(occurrences(before, "".join(old[a:b]))) != 1:
        if a == 0 and b == len(old):
            break
        if a > 0:
            a, c = a - 1, c - 1
        if b < len(old):
            b, d = b + 1, d + 1
    return [a, b, c, d]


def unified(before: Mapping[str, str], after: Mapping[str, str]) -> str:
    """Return the unified diff of two file sets."""
    return "".join(_unified_lines(before, after))


def _unified_lines(before: Mapping[str, str], after: Mapping[str, str]) -> Iterator[str]:
    for file in sorted({*before, *after}):
        old = before.get(file, "").splitlines(keepends=True)
        new = after.get(file, "").splitlines(keepends=True)
        for line in difflib.unified_diff(old, new, f"a/{file}", f"b/{file}"):
            yield line if line.endswith("\n") else line + "\n\\ No newline at end of file\n"


def changed_lines(before: Mapping[str, str], after: Mapping[str, str]) -> tuple[int, int]:
    """Return the numbers of added and removed lines."""
    added = removed = 0
    for line in _unified_lines(before, after):
        added += line.startswith("+") and not line.startswith("+++")
        removed += line.startswith("-") and not line.startswith("---")
    return added, removed
