"""Checks that cost no training: each a small function with a reason.

A gate sees the parent's editable files and the mutated ones, and says whether the mutation may go
on, and one line for people. None of them defends the machine: that is the sandbox's work.
"""

from __future__ import annotations

import ast
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping

from ..core.records import CheckNote
from .fingerprint import UNREADABLE, fingerprint, parse_file

MAX_FILE_BYTES = 200_000
"""Size of a file, unless the parent's is larger already."""

MAX_LITERAL_BYTES = 20_000
"""Size of one literal, and by how much all literals of a file together may grow."""

ADVISORY = re.compile(
    r"(subprocess|socket|ctypes|urllib|requests|http|ftplib|smtplib|multiprocessing|importlib|runpy"
    r"|pickle|marshal|pty|os\.(system|popen|fork\w*|kill\w*|exec\w+|spawn\w+|posix_spawn\w*)"
    r"|asyncio\.(create_subprocess_\w+|open_connection)|sys\.(settrace|setprofile|_getframe)"
    r"|torch\.(hub|multiprocessing|distributed|utils\.cpp_extension))(?!\w)"
)
"""Modules, and members of modules, that start processes, talk to others or run text as code."""

_BUILTIN = {"eval", "exec", "compile", "__import__", "open"}

Files = Mapping[str, str]

Gate = Callable[[Files, Files], tuple[bool, str]]


def touches_only_editable(before: Files, after: Files) -> tuple[bool, str]:
    """Everything else belongs to the harness; edits elsewhere were refused as they were applied."""
    added, gone = sorted(set(after) - set(before)), sorted(set(before) - set(after))
    if added:
        return False, f"{added[0]} may not be changed; editable: {', '.join(before)}"
    if gone:
        return False, f"{gone[0]} is gone; a mutation changes files, and removes none"
    return True, ""


def stays_small(before: Files, after: Files) -> tuple[bool, str]:
    """Weights or text smuggled in as literals need room, in one piece or in many."""
    for name, text in after.items():
        size, known = _size(text), _size(before.get(name, ""))
        if size > max(MAX_FILE_BYTES, known):
            return False, f"{name} has {size} bytes; at most {MAX_FILE_BYTES} are accepted"
        literals, was = _literals(name, text), _literals(name, before.get(name, ""))
        largest = max(literals, default=0)
        if largest > max(MAX_LITERAL_BYTES, *was, 0):
            return (
                False,
                f"{name} holds a literal of {largest} characters; "
                f"at most {MAX_LITERAL_BYTES} are accepted",
            )
        if (grown := sum(literals) - sum(was)) > MAX_LITERAL_BYTES:
            return (
                False,
                f"the literals of {name} grow by {grown} characters altogether; "
                f"at most {MAX_LITERAL_BYTES} are accepted",
            )
    return True, ""


def parses(before: Files, after: Files) -> tuple[bool, str]:
    """A file that does not compile would waste a start-up."""
    for name, text in after.items():
        if name.endswith(".py"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    compile(text.encode(), name, "exec", dont_inherit=True)  # as it is run
            except UNREADABLE as error:
                line = getattr(error, "lineno", None)
                where = f" line {line}" if line else ""
                return False, f"{name}{where} does not compile: {str(error) or 'nested too deeply'}"
    return True, ""


def changes_something(before: Files, after: Files) -> tuple[bool, str]:
    """A mutation that only moves comments would be measured as luck."""
    if fingerprint(before) == fingerprint(after):
        return False, "the edits change nothing that runs"
    return True, ""


def advisory_scan(before: Files, after: Files) -> tuple[bool, str]:
    """Noted for the reader and never refused: a scan is fooled by one ``getattr``."""
    found: set[str] = set()
    for name, text in after.items():
        if name.endswith(".py"):
            found.update(_suspicious(parse_file(text)))
    return True, f"uses {', '.join(sorted(found))}" if found else ""


GATES: tuple[Gate, ...] = (
    touches_only_editable,
    stays_small,
    parses,
    changes_something,
    advisory_scan,
)
"""In the order in which they run."""


def run_checks(before: Files, after: Files) -> list[CheckNote]:
    """Run the gates in order, up to the first that refuses.

    Args:
        before: The parent's editable files.
        after: The mutated ones.

    Returns:
        One note a gate that ran, with what it cost; only the last can be a refusal.
    """
    notes: list[CheckNote] = []
    for check in GATES:
        started = time.perf_counter()
        ok, detail = check(before, after)
        notes.append(CheckNote(check.__name__, ok, detail, time.perf_counter() - started))
        if not ok:
            break
    return notes


def fits_memory(peak_bytes: int, bound_bytes: int | None) -> CheckNote:
    """Hold the smoke run's measured peak against the memory that a trial may take.

    No estimate from the source is made: what a model takes is not in its text. The first steps'
    peak is a lower bound of the whole run's, so what is above the bound here need not be trained.

    Args:
        peak_bytes: Measured by the smoke run; 0 where it is not known.
        bound_bytes: Nine tenths of the device's memory, shared among the trials on it, or None.
    """
    if not peak_bytes or not bound_bytes:
        return CheckNote("memory", True, "not measured")
    said = f"{peak_bytes >> 20} MiB in the first steps"
    if peak_bytes > bound_bytes:
        return CheckNote("memory", False, f"{said}; at most {bound_bytes >> 20} MiB are allowed")
    return CheckNote("memory", True, f"{said}, {peak_bytes / bound_bytes:.0%} of what is allowed")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _literals(name: str, text: str) -> list[int]:
    """Characters of every literal of a program, docstrings included; none if it does not parse."""
    if not name.endswith(".py"):
        return []
    try:
        tree = parse_file(text)
    except UNREADABLE:
        return []
    return [_length(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]


def _length(value: object) -> int:
    if isinstance(value, str | bytes):
        return len(value)
    if type(value) is int:
        return (value.bit_length() + 3) // 4
    return 16 if isinstance(value, float | complex) else 0


def _suspicious(tree: ast.Module) -> Iterator[str]:
    """What a program imports or names of `ADVISORY`, by its real name, and some built-ins."""
    known: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _listed(alias.name)
                first = alias.name.partition(".")[0]
                known[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from _listed(full)
                known[alias.asname or alias.name] = full
    own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = _dotted(node).split(".")
            if first in known:
                yield from _listed(".".join((known[first], *rest)))
        elif isinstance(node, ast.Name) and node.id in _BUILTIN - own:
            yield node.id


def _dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id if isinstance(node, ast.Name) else "?"]))


def _listed(name: str) -> Iterator[str]:
    """The listed beginning of a dotted name, if any."""
    if match := ADVISORY.match(name):
        yield match[0]
