"""Read unified diffs: by contexts that are unique, or else as git reads them."""

from __future__ import annotations

import os
import re
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from ..core.proposal import Edit, EditError
from .edits import apply, edits_between

HUNK = re.compile(r"^@@(?: .*)?$")

_GIT_S = 20.0
"""Seconds for one run of git."""

_COUNTS = re.compile(r"^@@ -\d+(?:,(\d+))? \+\d+(?:,(\d+))? @@")

_FILES = re.compile(
    r"(?:rename|copy) (?:from|to) |(?:new|deleted) file mode |(?:old|new) mode 120000"
    r"|GIT binary patch"
)
"""Headers of a diff that adds, removes, renames or links a file; git never sees one."""

_VERSION = re.compile(r"^\d+\.\d+")


def read(lines: list[str], files: Mapping[str, str]) -> tuple[tuple[Edit, ...], str]:
    """Return the edits of a diff, and the text around it.

    Raises:
        EditError: It does not apply, or changes other files than the editable ones.
    """
    edits, prose = _by_context(lines, files)
    for line in lines:
        if _FILES.match(line):
            raise EditError(f"{line[:60]!r}: change only the text of {', '.join(files)}")
    for edit in edits:
        if edit.file not in files:
            raise EditError(f"{edit.file!r} may not be changed; editable: {', '.join(files)}")
    try:
        apply(files, edits)
    except EditError:
        edits = _by_git(lines, files) or edits
    for edit in edits:
        if not edit.search.strip():
            raise EditError(
                f"a hunk of {edit.file} only adds lines, and not at the line that it states; make "
                "the diff with context (git diff -U3)"
            )
    return edits, prose


def join(lines: Sequence[str]) -> str:
    """Return lines as text that ends with a line end."""
    return "".join(line + "\n" for line in lines)


def _by_git(lines: Sequence[str], files: Mapping[str, str]) -> tuple[Edit, ...] | None:
    """Return the edits that ``git apply`` makes at the very lines that the diff states, or None.

    It is asked where contexts are not unique, or missing. That it may not search for another place
    keeps a stale diff from changing the wrong lines.
    """
    if not _counted(lines):
        return None
    before = {name: text.replace("\r\n", "\n") for name, text in files.items()}
    literal = any(line[:4] == "+++ " and _name(line) in files for line in lines)
    with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
        root = Path(folder).resolve()
        for name, text in before.items():
            (root / name).parent.mkdir(parents=True, exist_ok=True)
            (root / name).write_bytes(text.encode("utf-8", "surrogatepass"))
        if not _git_apply(join(lines), root, "-p0" if literal else "-p1"):
            return None
        after = {name: (root / name).read_bytes().decode("utf-8", "replace") for name in before}
    edits = [edit for n in before for edit in edits_between(before[n], after[n], n)]
    return tuple(edits) or None


def _counted(lines: Sequence[str]) -> bool:
    """Return whether every hunk ends where its header says; git ignores what comes after."""
    for start, header in enumerate(lines):
        if (match := _COUNTS.match(header)) is None:
            continue
        i, old, new = start + 1, int(match[1] or 1), int(match[2] or 1)
        while (old > 0 or new > 0) and i < len(lines):
            old -= lines[i][:1] in ("", " ", "-")
            new -= lines[i][:1] in ("", " ", "+")
            i += 1
        while i < len(lines) and lines[i][:1] in ("", "\\"):
            i += 1
        ended = i == len(lines) or lines[i][0] not in " +-" or lines[i].rstrip() in ("--", "---")
        if old or new or not (ended or lines[i].startswith("--- ")):
            return False
    return True


def _name(line: str) -> str:
    """Return the path of a ``+++`` line, without its time."""
    return line[4:].split("\t")[0].strip()


def _git_apply(diff: str, root: Path, strip: str) -> bool:
    """Apply a diff in a folder; return whether it fits without an offset.

    No configuration is read, and no repository around the folder is found.
    """
    environment = {
        "PATH": os.environ.get("PATH", os.defpath),
        "LC_ALL": "C",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_CEILING_DIRECTORIES": str(root.parent),
    }
    command = ["git", "apply", "--verbose", "--unidiff-zero", "--whitespace=nowarn", strip, "-"]
    try:
        done = subprocess.run(
            command,
            input=diff.encode("utf-8", "surrogatepass"),
            cwd=root,
            env=environment,
            capture_output=True,
            timeout=_GIT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired):
        return False
    return done.returncode == 0 and b"(offset " not in done.stderr


def _by_context(
    lines: Sequence[str], files: Mapping[str, str]
) -> tuple[tuple[Edit, ...], str]:
    """Read a diff whose line numbers and counts are ignored: models miscount."""
    edits: list[Edit] = []
    prose: list[str] = []
    file, old, new, blanks, inside = "", list[str](), list[str](), 0, False

    def end() -> None:
        nonlocal blanks
        if old != new:
            edits.append(Edit(file, join(old), join(new)))
        old.clear()
        new.clear()
        blanks = 0

    for i, line in enumerate(lines):
        following = lines[i + 1] if i + 1 < len(lines) else ""
        if line.startswith("--- ") and following.startswith("+++ "):
            end()
            inside = False
        elif line.startswith("+++ "):
            if not (i and lines[i - 1].startswith("--- ")):
                raise EditError(f"the line {line[:40]!r} of the diff has no line --- before it")
            name = _name(line)
            file = name if name in files else name.partition("/")[2] or name
        elif HUNK.match(line):
            end()
            inside = True
            if not file:
                raise EditError("the diff names no file (no +++ line)")
        elif inside and not line:
            blanks += 1  # a context line, unless it ends the hunk
        elif line.rstrip() == "--" and _VERSION.match(following):  # the signature of a mail
            end()
            file, inside = "", False
        elif inside and line[0] in " +-":
            old.extend([""] * blanks)
            new.extend([""] * blanks)
            blanks = 0
            if line[0] != "+":
                old.append(line[1:])
            if line[0] != "-":
                new.append(line[1:])
        elif not line.startswith("\\"):
            if file and line.startswith(("+", "-")):
                raise EditError(f"the line {line[:40]!r} of the diff has no @@ line before it")
            end()
            inside = False
            prose.append(line)
    end()
    if not edits:
        raise EditError("the diff has a hunk header, but no line is added or removed")
    return tuple(edits), "\n".join(prose)
