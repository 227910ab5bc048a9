"""Checks that cost no training: each a small function with a reason."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Mapping

from .fingerprint import fingerprint
from .records import GateNote

MAX_FILE_BYTES = 200_000
MAX_LITERAL_BYTES = 20_000
_ADVISORY = {"subprocess", "socket", "ctypes", "urllib", "requests", "http", "multiprocessing"}
_ADVISORY_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}


Files = Mapping[str, str]


def parses(before: Files, after: Files) -> tuple[bool, str]:
    """A file that does not compile would waste a start-up."""
    for name, text in after.items():
        if name.endswith(".py"):
            try:
                compile(text, name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError) as error:
                line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
                return False, f"{name}{line} does not compile: {error}"
    return True, ""


def changes_something(before: Files, after: Files) -> tuple[bool, str]:
    """A mutation that only moves comments would be measured as luck."""
    if fingerprint(before) == fingerprint(after):
        return False, "the edits change nothing that runs"
    return True, ""


def stays_small(before: Files, after: Files) -> tuple[bool, str]:
    """Weights or text smuggled in as a literal need room."""
    for name, text in after.items():
        size = len(text.encode())
        if size > MAX_FILE_BYTES:
            return False, f"{name} has {size} bytes; at most {MAX_FILE_BYTES} are accepted"
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                value = node.value if isinstance(node, ast.Constant) else None
                if isinstance(value, str | bytes) and len(value) > MAX_LITERAL_BYTES:
                    return (
                        False,
                        f"{name} holds a literal of {len(value)} characters; "
                        f"at most {MAX_LITERAL_BYTES} are accepted",
                    )
    return True, ""


def advisory_scan(before: Files, after: Files) -> tuple[bool, str]:
    """Noted for the reader; the sandbox is the defence, not this scan."""
    found = set()
    for name, text in after.items():
        if not name.endswith(".py"):
            continue
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.Import):
                found |= {a.name.split(".")[0] for a in node.names} & _ADVISORY
            elif isinstance(node, ast.ImportFrom) and node.module:
                found |= {node.module.split(".")[0]} & _ADVISORY
            elif isinstance(node, ast.Call):
                called = getattr(node.func, "id", None)
                found |= {called} & _ADVISORY_CALLS if called else set()
    return True, f"uses {', '.join(sorted(found))}" if found else ""


GATES: tuple[Callable[[Files, Files], tuple[bool, str]], ...] = (
    parses,
    stays_small,
    changes_something,
    advisory_scan,
)
"""In the order in which they run."""


def run_gates(before: Files, after: Files) -> list[GateNote]:
    """Run the gates in order, up to the first that refuses.

    Args:
        before: The parent's editable files.
        after: The mutated ones; edits to any other file were refused when they were applied.
    """
    notes: list[GateNote] = []
    for gate in GATES:
        started = time.perf_counter()
        ok, detail = gate(before, after)
        notes.append(GateNote(gate.__name__, ok, detail, time.perf_counter() - started))
        if not ok:
            break
    return notes
