"""The workspace of an agent: a plain copy of the project, and the files its program needs."""

from __future__ import annotations

import contextlib
import functools
import os
import re
import shutil
import stat
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from ...core.files import temporary_folder
from ...core.proposal import Context, Edit, ProposalInvalid
from ...core.text import one_line
from ...source.edits import edits_between

FILE_BYTES = 1 << 20
"""Largest editable file that is read back."""

MAX_ENTRIES = 500

_COMPARISONS = 10**6


@contextlib.contextmanager
def workspace() -> Iterator[tuple[Path, Path]]:
    """Create an empty home and an empty folder for a copy; remove both afterwards."""
    with temporary_folder("agent") as folder:
        home, copy = folder / "home", folder / "copy"
        home.mkdir()
        copy.mkdir()
        yield home, copy


def fill(copy: Path, context: Context) -> None:
    """Write the copy: brief, fixed files and editable files; no repository."""
    brief = {context.experiment.program: context.program}
    for name, text in {**brief, **context.fixed_files, **context.files}.items():
        path = copy / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_bytes(text))


def changes(copy: Path, context: Context) -> tuple[Edit, ...]:
    """Return the changes of the editable files.

    Raises:
        ProposalInvalid: Another file was changed, or an editable file is not a text file any more.
    """
    fixed = {context.experiment.program: context.program, **context.fixed_files}
    for name in _visible(copy):
        if name in context.files:
            continue
        if name not in fixed:
            raise ProposalInvalid(
                f"the agent made {one_line(name, 100)}, which is not an editable file"
            )
        if _read(copy / name, len(_bytes(fixed[name]))) != _bytes(fixed[name]):
            raise ProposalInvalid(f"the agent changed {name}, which no proposal may change")
    gone = [name for name in fixed if not os.path.lexists(copy / name)]
    if gone:
        raise ProposalInvalid(f"the agent removed {gone[0]}, which no proposal may change")
    edits: list[Edit] = []
    for name, before in context.files.items():
        real = os.path.join(os.path.realpath(copy), name)
        after = read_text(copy / name) if os.path.realpath(copy / name) == real else None
        if after is None:
            raise ProposalInvalid(
                f"the agent left no {name} of at most {FILE_BYTES >> 20} MiB of UTF-8 text"
            )
        edits += _edits(before, after, name)
    return tuple(edits)


def _edits(before: str, after: str, name: str) -> tuple[Edit, ...]:
    """Return one file's edits; as a whole if lines repeat so often that comparing takes minutes."""
    times = Counter(after.splitlines())
    if sum(times[line] for line in before.splitlines()) > _COMPARISONS:
        return (Edit(name, before, after),)
    return edits_between(before, after, name)


def _visible(copy: Path) -> Iterator[str]:
    """Yield the files of the copy, without hidden ones and caches."""
    count = 0
    for folder, folders, files in os.walk(copy):
        folders[:] = [f for f in folders if not f.startswith(".") and f != "__pycache__"]
        count += len(folders) + len(files)
        if count > MAX_ENTRIES:
            raise ProposalInvalid(f"the agent made more than {MAX_ENTRIES} files and folders")
        links = [f for f in folders if os.path.islink(os.path.join(folder, f))]
        for name in (*files, *links):
            if not name.startswith("."):
                yield os.path.relpath(os.path.join(folder, name), copy)


def read_text(path: Path) -> str | None:
    """Return a regular file's text; None for anything else, links and pipes included."""
    data = _read(path, FILE_BYTES)
    try:
        return None if data is None else data.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _read(path: Path, limit: int) -> bytes | None:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError:
        return None
    if not stat.S_ISREG(os.fstat(fd).st_mode):
        os.close(fd)
        return None
    with open(fd, "rb") as file:
        data = file.read(limit + 1)
    return data if len(data) <= limit else None


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# Files that a program needs to run


def installation(program: str) -> tuple[str, ...]:
    """Return the paths that a program reads: itself, its packages, its interpreter."""
    paths: list[str] = []
    todo = [program]
    while todo:
        path = todo.pop()
        real = os.path.realpath(path)
        paths += [path, real]
        head, inside, _ = real.partition("/node_modules/")
        if inside:
            paths.append(f"{head}/node_modules")
        for place in dict.fromkeys((path, real)):
            paths += _prefix(place)
        todo += [i for i in _shebang(real) if i not in paths]
    return tuple(dict.fromkeys(paths))


def _prefix(program: str) -> list[str]:
    """Return the library folders of a program in a venv, nvm, pyenv or conda."""
    folder, name = os.path.split(os.path.dirname(program))
    if name != "bin" or folder in ("/", "/usr", "/usr/local", os.path.expanduser("~")):
        return []
    if os.path.exists(f"{folder}/pyvenv.cfg"):
        return [folder]
    home = os.path.realpath(os.path.expanduser("~"))
    if os.path.realpath(folder) == f"{home}/.local":
        return []  # shared by all programs; the real path holds this one's files
    return [f"{folder}/bin", f"{folder}/lib"]


def _shebang(program: str) -> list[str]:
    try:
        with open(program, "rb") as file:
            first = file.readline(512)
    except OSError:
        return []
    if not first.startswith(b"#!"):
        return []
    words = first[2:].decode("utf-8", "replace").split()
    if words and os.path.basename(words[0]) == "env":
        names = [w for w in words[1:] if not w.startswith("-") and "=" not in w]
        interpreter = shutil.which(names[0]) if names else None
        return [words[0], interpreter] if interpreter else [words[0]]
    return words[:1]


def hidden_files(hide: Sequence[str], program: str, read: Sequence[str]) -> tuple[str, ...]:
    """Return the files to hide from a program: those for candidates, in each Python it runs with.

    Args:
        hide: Files that are hidden from candidates.
        program: Path of the program.
        read: What the user makes readable; a module among them stays readable.
    """
    own = sysconfig.get_path("stdlib")
    hide = [path for path in hide if not any(_same_module(path, opened) for opened in read)]
    names = [os.path.relpath(p, own) for p in hide if p.startswith(f"{own}/") and p.endswith(".py")]
    used = [path for path in installation(program) if re.search(r"/python[\d.]*t?$", path)]
    # in the sandbox, `env` finds the first on PATH that is visible there
    used += [shutil.which(os.path.basename(p), path=f) or "" for p in used for f in _path()]
    libraries = dict.fromkeys(filter(None, map(_library, dict.fromkeys(used))))
    return (*hide, *(os.path.join(library, name) for library in libraries for name in names))


def _same_module(path: str, other: str) -> bool:
    """Return whether a source, or its compiled file, has the name and folder of another file."""
    folder, name = os.path.split(path.replace("/__pycache__/", "/"))
    keys = [os.path.basename(folder), name.partition(".")[0]]
    return keys == [Path(other).parent.name, Path(other).stem]


def _path() -> list[str]:
    return os.environ.get("PATH", os.defpath).split(os.pathsep)


@functools.cache
def _library(python: str) -> str:
    """Return the standard library of an interpreter, or ''."""
    command = [python, "-I", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"]
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=20).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return ""


def interpreters(program: str) -> list[str]:
    """Return the folders of a program and its interpreter, for PATH."""
    programs = (program, *_shebang(os.path.realpath(program)))
    return list(dict.fromkeys(map(os.path.dirname, programs)))
