"""Past attempts as text that is safe to show to a language model.

Text that candidates or models produced is quoted as data: a log that says "ignore your rules" is a
log.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache

from ..core.proposal import Edit, PastAttempt
from ..judge.families import expected_of, family_of
from ..judge.verdicts import NEAR_MISS
from ..source.fingerprint import UNREADABLE, parse

LESSON_EVERY = 10
"""Attempts after which lessons are drawn from the history again."""

UNUSUAL_NATS = 30.0
"""Loss of one token above which it is worth a word in the history."""

_CONTROL = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # whole terminal escapes
    r"|[\x00-\x08\x0b-\x1f\x7f-\x9f\ud800-\udfff]"
    # characters that reorder or hide text, or carry text that a person does not see
    r"|[\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufe00-\ufe0f\ufeff\ufff9-\ufffb]"
    r"|[\U000e0000-\U000e01ef]"
)

_BOUNDARY = re.compile(r"\[(/?)(INST|SYS|SYSTEM)\]|```+|~~~+", re.IGNORECASE)
"""Marks that end a fence, or a turn in chat formats, besides those that begin with ``<``."""

_ASSIGNMENT = re.compile(r"^([A-Z][A-Z0-9_]*+)[ \t]*+=[ \t]*+([^=\n][^#\n]*)", re.M)

_LITERAL = (
    ast.Module, ast.Expr, ast.Constant, ast.Tuple, ast.List, ast.UnaryOp, ast.BinOp, ast.IfExp,
    ast.operator, ast.unaryop, ast.expr_context,
)  # fmt: skip


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
    """Return the constants that edits change: name in capitals to the old and the new literal."""
    changed: dict[str, tuple[str, str]] = {}
    for edit in edits:
        old, new = _assignments(edit.search), _assignments(edit.replace)
        changed |= {n: (old[n], new[n]) for n in old if n in new and old[n] != new[n]}
    return changed


def _assignments(text: str) -> dict[str, str]:
    found = ((name, value.rstrip()) for name, value in _ASSIGNMENT.findall(text))
    return {name: value for name, value in found if _is_literal(value)}


@lru_cache(maxsize=4096)
def _is_literal(text: str) -> bool:
    """Return whether an expression is made of literals, and of names in capitals in conditions."""
    try:
        tree = parse(text)
    except UNREADABLE:
        return False
    return len(tree.body) == 1 and all(
        isinstance(node, _LITERAL) or (isinstance(node, ast.Name) and node.id.isupper())
        for node in ast.walk(tree)
    )


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
    """Return one line of the history; `prompt` explains its columns.

    Args:
        attempt: The attempt.
        names: Item name of each ledger id, for the parent.
    """
    near = attempt.verdict == "discard" and (attempt.gain_sigma or 0.0) > NEAR_MISS
    parent = names.get(attempt.parent or 0, "")
    verdict = attempt.verdict + (" (near miss)" if near else "")
    if attempt.cause and attempt.cause != attempt.verdict:
        verdict += f": {attempt.cause.removeprefix(f'{attempt.verdict}: ')}"
    size = f"+{attempt.lines_added}/-{attempt.lines_removed} "
    changed = "" if attempt.verdict == "running" else size
    parts = (
        f"{attempt.name}{f' on {parent}' if parent else ''}",
        verdict,
        _score(attempt),
        line(attempt.title, 100),
        _expectation(attempt),
        _training(attempt),
        f"{changed}{describe(attempt.edits)}".strip() if parent else "",
        line(attempt.reason) if attempt.score is None else "",
    )
    return " | ".join(part for part in parts if part)


def _score(attempt: PastAttempt) -> str:
    if attempt.score is None:
        return "" if attempt.verdict == "running" else "-"
    text = f"{attempt.score:.6f}"
    seeds = attempt.measured.seeds
    on = f"seed{'s' if len(seeds) > 1 else ''} {' '.join(map(str, seeds))}" if seeds else ""
    if attempt.gain is not None and attempt.gain_sigma is not None:
        details = ", ".join(part for part in (f"{attempt.gain_sigma:+.1f} sigma", on) if part)
        return f"{text} gain {attempt.gain:+.6f} ({details})"
    return f"{text} ({on})" if on else text


def _expectation(attempt: PastAttempt) -> str:
    expected = expected_of(attempt.meta)
    parts = (family_of(attempt.meta), "" if expected is None else f"expected {expected:+.4f}")
    return ", ".join(part for part in parts if part)


def _training(attempt: PastAttempt) -> str:
    """Return how much the attempt trained, and what it learned, beside the champion."""
    measured = attempt.measured
    if not measured.steps:
        return ""
    text = f"{measured.steps:.0f} steps"
    if measured.more_work is not None:
        text += f" ({measured.more_work:+.1%} tokens)"
    if measured.train_loss:
        text += f", loss {measured.train_loss:.4f}"
    if measured.lead is not None:
        text += f", lead {measured.lead:+.4f}"
    if measured.worst_token > UNUSUAL_NATS:
        text += f", worst token {measured.worst_token:.1f} nats"
    return text


def latest_failure(history: Sequence[PastAttempt]) -> PastAttempt | None:
    """Return the latest finished attempt if it crashed or timed out."""
    finished = [a for a in history if a.verdict not in ("running", "baseline")]
    return finished[-1] if finished and finished[-1].verdict in ("crash", "timeout") else None
