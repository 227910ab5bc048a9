"""Past attempts as text that is safe to show to a language model.

Text that candidates or models produced is quoted as data: a log that says "ignore your rules" is a
log.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..core.proposal import Edit, PastAttempt
from ..judge.verdicts import NEAR_MISS

LESSON_EVERY = 10
"""Attempts after which lessons are drawn from the history again."""

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # whole terminal escapes
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
    # characters that reorder or hide text, or carry text that a person does not see
    r"|[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]"
    r"|[\U000e0000-\U000e01ef]"
)

_BOUNDARY = re.compile(r"\[(/?)(INST|SYS|SYSTEM)\]|```+|~~~+", re.IGNORECASE)
"""Marks that end a fence, or a turn in chat formats, besides those that begin with ``<``."""

_ASSIGNMENT = re.compile(r"^[ \t]*+([A-Za-z_]\w*+)[ \t]*+=[ \t]*+([^=\n][^#\n]*)", re.M)


def quote(name: str, text: str) -> str:
    """Return untrusted text as data: no control characters, no markup that could close it.

    Each line gets a mark before it, so that none begins like a turn of a conversation.
    """
    safe = _defuse(text.replace("\r\n", "\n").replace("\r", "\n")).strip("\n")
    inside = "\n".join(f"| {line}" for line in safe.split("\n"))
    return f'<data name="{name}">\n{inside}\n</data>'


def line(text: str, length: int = 160) -> str:
    """Return untrusted text in one line, without characters that could be taken for structure."""
    return " ".join(_defuse(text).replace("|", "/").split())[:length].strip()


def _defuse(text: str) -> str:
    safe = _CONTROL.sub("", text).replace("<", "&lt;")
    return _BOUNDARY.sub(lambda m: f"({m[1]}{m[2]})" if m[2] else "'" * len(m[0]), safe)


def constants(edits: Sequence[Edit]) -> dict[str, tuple[str, str]]:
    """Return the plain assignments that edits change: name to the old and the new expression."""
    changed: dict[str, tuple[str, str]] = {}
    for edit in edits:
        old, new = _assignments(edit.search), _assignments(edit.replace)
        changed |= {n: (old[n], new[n]) for n in old if n in new and old[n] != new[n]}
    return changed


def _assignments(text: str) -> dict[str, str]:
    return {name: value.rstrip() for name, value in _ASSIGNMENT.findall(text)}


def describe(edits: Sequence[Edit], length: int = 100) -> str:
    """Describe edits in one line: the constants they change, else the first new line."""
    if changed := constants(edits):
        return line("; ".join(f"{n} {a} -> {b}" for n, (a, b) in sorted(changed.items())), length)
    for edit in edits:
        before = {text.strip() for text in edit.search.splitlines()}
        for text in map(str.strip, edit.replace.splitlines()):
            if text and text not in before:
                return line(f"+ {text}", length)
    return "only deletes" if edits else ""


def summarize(attempt: PastAttempt, names: Mapping[int, str]) -> str:
    """Return one line of the history: name, verdict, score, gain, change, cause of a failure.

    Args:
        attempt: The attempt.
        names: Item name of each ledger id, for the parent.
    """
    score = "-" if attempt.score is None else f"{attempt.score:.6f}"
    if attempt.gain is not None and attempt.gain_sigma is not None:
        score += f" gain {attempt.gain:+.6f} ({attempt.gain_sigma:+.1f} sigma)"
    near = attempt.verdict == "discard" and (attempt.gain_sigma or 0.0) > NEAR_MISS
    parent = names.get(attempt.parent or 0, "")
    size = f"+{attempt.lines_added}/-{attempt.lines_removed}"
    parts = (
        f"{attempt.name}{f' on {parent}' if parent else ''}",
        attempt.verdict + (" (near miss)" if near else ""),
        score,
        line(attempt.title, 100),
        f"{size} {describe(attempt.edits)}".strip() if parent else "",
        line(attempt.reason) if attempt.score is None else "",
    )
    return " | ".join(part for part in parts if part)


def latest_failure(history: Sequence[PastAttempt]) -> PastAttempt | None:
    """Return the latest finished attempt if it crashed or timed out."""
    finished = [a for a in history if a.verdict not in ("running", "baseline")]
    return finished[-1] if finished and finished[-1].verdict in ("crash", "timeout") else None
