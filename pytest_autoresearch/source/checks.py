"""Static checks of a mutation before any training.

A check gets the parent's and the mutated editable files, and returns whether the mutation passes
and a line for people. The checks do not protect the machine; the sandbox does.
"""

from __future__ import annotations

import ast
import re
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence

from ..core.proposal import Edit, EditError
from ..core.records import CheckNote
from ..core.text import one_line
from .edits import apply
from .fingerprint import UNREADABLE, fingerprint, parse_file

MAX_FILE_BYTES = 200_000
"""Maximum size of a file, unless the parent's is larger."""

MAX_LITERAL_BYTES = 20_000
"""Maximum size of one literal, and maximum growth of all literals of a file together."""

ADVISORY = re.compile(
    r"(subprocess|socket|ctypes|urllib|requests|http|ftplib|smtplib|multiprocessing|importlib|runpy"
    r"|pickle|marshal|pty|os\.(system|popen|fork\w*|kill\w*|exec\w+|spawn\w+|posix_spawn\w*)"
    r"|asyncio\.(create_subprocess_\w+|open_connection)|sys\.(settrace|setprofile|_getframe)"
    r"|torch\.(hub|multiprocessing|distributed|utils\.cpp_extension))(?!\w)"
)
"""Modules and members that start processes, communicate or execute text."""

_BUILTIN = {"eval", "exec", "compile", "__import__", "open"}

Files = Mapping[str, str]

Check = Callable[[Files, Files], tuple[bool, str]]


def touches_only_editable(before: Files, after: Files) -> tuple[bool, str]:
    """Reject added and removed files."""
    added, gone = sorted(set(after) - set(before)), sorted(set(before) - set(after))
    if added:
        return False, f"{added[0]} may not be changed; editable: {', '.join(before)}"
    if gone:
        return False, f"{gone[0]} is missing; a mutation may not remove files"
    return True, ""


def stays_small(before: Files, after: Files) -> tuple[bool, str]:
    """Reject literals large enough to hold weights or text, in one piece or in many."""
    for name, text in after.items():
        size, size_before = _size(text), _size(before.get(name, ""))
        if size > max(MAX_FILE_BYTES, size_before):
            return False, f"{name} has {size} bytes; at most {MAX_FILE_BYTES} are accepted"
        literals, earlier = _literals(name, text), _literals(name, before.get(name, ""))
        largest = max(literals, default=0)
        if largest > max(MAX_LITERAL_BYTES, 0, *earlier):
            grown = f"holds a literal of {largest} characters"
        elif (growth := sum(literals) - sum(earlier)) > MAX_LITERAL_BYTES:
            grown = f"has literals that grow by {growth} characters altogether"
        else:
            continue
        return False, f"{name} {grown}; at most {MAX_LITERAL_BYTES} are accepted"
    return True, ""


def parses(before: Files, after: Files) -> tuple[bool, str]:
    """Reject Python files that do not compile."""
    for name, text in after.items():
        if name.endswith(".py"):
            try:
                with warnings.catch_warnings():
                    warnings.simplefilter("ignore")
                    compile(text.encode(), name, "exec", dont_inherit=True)
            except UNREADABLE as error:
                line = getattr(error, "lineno", None)
                where = f" line {line}" if line else ""
                reason = getattr(error, "msg", "") or one_line(error) or "it is nested too deeply"
                return False, f"{name}{where} does not compile: {reason}"
    return True, ""


def changes_something(before: Files, after: Files) -> tuple[bool, str]:
    """Reject mutations that change only comments, formatting or names of locals."""
    if fingerprint(before) == fingerprint(after):
        return False, "the edits change nothing that runs"
    return True, ""


def apply_checked(files: Files, edits: Sequence[Edit]) -> dict[str, str]:
    """Apply edits that must leave Python files that compile, and change something.

    Raises:
        EditError: They do not; the message is meant for their author.
    """
    changed = apply(files, edits)
    for check in (parses, changes_something):
        ok, detail = check(files, changed)
        if not ok:
            raise EditError(detail)
    return changed


def advisory_scan(before: Files, after: Files) -> tuple[bool, str]:
    """Note suspicious imports and calls; never reject, since one ``getattr`` defeats any scan."""
    uses: set[str] = set()
    for name, text in after.items():
        if name.endswith(".py"):
            uses.update(_suspicious(parse_file(text)))
    return True, f"uses {', '.join(sorted(uses))}" if uses else ""


CHECKS: tuple[Check, ...] = (
    touches_only_editable,
    stays_small,
    parses,
    changes_something,
    advisory_scan,
)
"""All checks, in the order in which they run."""


def run_checks(before: Files, after: Files) -> list[CheckNote]:
    """Run the checks in order, up to the first that fails.

    Args:
        before: The parent's editable files.
        after: The mutated ones.

    Returns:
        One note per check that ran, with its duration; only the last can be a failure.
    """
    notes: list[CheckNote] = []
    for check in CHECKS:
        started = time.perf_counter()
        ok, detail = check(before, after)
        notes.append(CheckNote(check.__name__, ok, detail, time.perf_counter() - started))
        if not ok:
            break
    return notes


def fits_memory(peak_bytes: int, bound_bytes: int | None) -> CheckNote:
    """Compare the smoke run's peak memory with the bound of a run.

    The peak of the first steps is a lower bound of the whole run's.

    Args:
        peak_bytes: Measured by the smoke run; 0 if unknown.
        bound_bytes: Nine tenths of the device's memory, divided by the concurrent runs, or None.
    """
    if not peak_bytes or not bound_bytes:
        return CheckNote("memory", True, "not measured")
    used = f"{peak_bytes >> 20} MiB in the first steps"
    if peak_bytes > bound_bytes:
        return CheckNote("memory", False, f"{used}; at most {bound_bytes >> 20} MiB are allowed")
    return CheckNote("memory", True, f"{used}, {peak_bytes / bound_bytes:.0%} of the bound")


def _size(text: str) -> int:
    return len(text.encode("utf-8", "surrogatepass"))


def _literals(name: str, text: str) -> list[int]:
    """Return the size of every literal, docstrings included; [] if the file does not parse."""
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
    """Yield the real names of imports and members in `ADVISORY`, and some built-ins."""
    real: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield from _listed(alias.name)
                first = alias.name.partition(".")[0]
                real[alias.asname or first] = alias.name if alias.asname else first
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                full = f"{node.module}.{alias.name}"
                yield from _listed(full)
                real[alias.asname or alias.name] = full
    own = {n.id for n in ast.walk(tree) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Store)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            first, *rest = _dotted(node).split(".")
            if first in real:
                yield from _listed(".".join((real[first], *rest)))
        elif isinstance(node, ast.Name) and node.id in _BUILTIN - own:
            yield node.id


def _dotted(node: ast.AST) -> str:
    parts = []
    while isinstance(node, ast.Attribute):
        parts.append(node.attr)
        node = node.value
    return ".".join(reversed([*parts, node.id if isinstance(node, ast.Name) else "?"]))


def _listed(name: str) -> Iterator[str]:
    """Yield the prefix of a dotted name that is in `ADVISORY`, if any."""
    if match := ADVISORY.match(name):
        yield match[0]
