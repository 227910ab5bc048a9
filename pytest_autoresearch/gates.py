"""Checks that cost no training: each a small function with a reason."""

from __future__ import annotations

import ast
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from .fingerprint import fingerprint

MAX_FILE_BYTES = 200_000
MAX_LITERAL_BYTES = 20_000
_ADVISORY = {"subprocess", "socket", "ctypes", "urllib", "requests", "http", "multiprocessing"}
_ADVISORY_CALLS = {"eval", "exec", "compile", "__import__", "system", "popen"}


@dataclass(frozen=True)
class GateResult:
    """What one gate says.

    Attributes:
        name: Of the gate.
        verdict: ``invalid`` if it refuses, '' otherwise.
        reason: Why, in one line; a note when it does not refuse.
        seconds: What the check cost.
    """

    name: str
    verdict: str = ""
    reason: str = ""
    seconds: float = 0.0


Files = Mapping[str, str]


def parses(before: Files, after: Files) -> tuple[str, str]:
    """A file that does not compile would waste a start-up."""
    for name, text in after.items():
        if name.endswith(".py"):
            try:
                compile(text, name, "exec", dont_inherit=True)
            except (SyntaxError, ValueError, RecursionError) as error:
                line = f" line {error.lineno}" if isinstance(error, SyntaxError) else ""
                return "invalid", f"{name}{line} does not compile: {error}"
    return "", ""


def changes_something(before: Files, after: Files) -> tuple[str, str]:
    """A mutation that only moves comments would be measured as luck."""
    if fingerprint(before) == fingerprint(after):
        return "invalid", "the edits change nothing that runs"
    return "", ""


def stays_small(before: Files, after: Files) -> tuple[str, str]:
    """Weights or text smuggled in as a literal need room."""
    for name, text in after.items():
        size = len(text.encode())
        if size > MAX_FILE_BYTES:
            return "invalid", f"{name} has {size} bytes; at most {MAX_FILE_BYTES} are accepted"
        if name.endswith(".py"):
            for node in ast.walk(ast.parse(text)):
                if isinstance(node, ast.Constant) and isinstance(node.value, str | bytes):
                    if len(node.value) > MAX_LITERAL_BYTES:
                        return (
                            "invalid",
                            f"{name} line {node.lineno} holds a literal of {len(node.value)} "
                            f"characters; at most {MAX_LITERAL_BYTES} are accepted",
                        )
    return "", ""


def advisory_scan(before: Files, after: Files) -> tuple[str, str]:
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
    return "", f"uses {', '.join(sorted(found))}" if found else ""


GATES: tuple[Callable[[Files, Files], tuple[str, str]], ...] = (
    parses,
    stays_small,
    changes_something,
    advisory_scan,
)
"""In the order in which they run."""


def run_gates(before: Files, after: Files) -> Sequence[GateResult]:
    """Run the gates in order, up to the first that refuses.

    Args:
        before: The parent's editable files.
        after: The mutated ones; edits to any other file were refused when they were applied.
    """
    results: list[GateResult] = []
    for gate in GATES:
        started = time.perf_counter()
        verdict, reason = gate(before, after)
        results.append(
            GateResult(gate.__name__, verdict, reason, time.perf_counter() - started)
        )
        if verdict:
            break
    return results
