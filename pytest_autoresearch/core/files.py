"""Files that are replaced atomically, and temporary files that a killed process leaves behind."""

from __future__ import annotations

import fcntl
import glob
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO

from .processes import process_start

STATE = ".autoresearch"
"""Folder of a project that holds everything that campaigns write; it ignores itself in git."""

_OWNER = ".pytest-autoresearch"
"""File in a temporary folder that its process keeps locked."""


@contextmanager
def replacing(path: Path) -> Iterator[IO[bytes]]:
    """Open a temporary file that replaces `path` when the block ends without an error.

    Raises:
        OSError: The disk is full or the folder is not writable; the old file is unchanged.
    """
    temporary = _temporary(path)
    try:
        with open(temporary, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        if error.filename in (None, str(temporary)):  # a failed write names no file
            error.filename = str(path)
        raise
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    """Return where the next content of `path` is written: the project's `STATE`, or beside it.

    A killed process would leave an untracked file in the user's project, where git adds it. What
    earlier ones left of `path` is removed.
    """
    folder, name = path.parent, f".{path.name}"
    for parent in path.absolute().parents:
        state = parent if parent.name == STATE else parent / STATE
        if (state / ".gitignore").is_file():
            with suppress(OSError):
                (state / "tmp").mkdir(exist_ok=True)
                if (state / "tmp").stat().st_dev == folder.stat().st_dev:
                    folder, name = state / "tmp", path.name
            break
    _drop_dead(folder, glob.escape(name))
    return folder / f"{name}.{os.getpid()}.tmp"


def _drop_dead(folder: Path, pattern: str) -> None:
    """Remove the temporary files of processes that have ended."""
    for path in folder.glob(f"{pattern}.*.tmp"):
        pid = path.name.rsplit(".", 2)[1]
        if pid.isdecimal() and not process_start(int(pid)):
            with suppress(OSError):
                path.unlink()


def write_atomic(path: Path, content: bytes | str | Iterable[bytes]) -> None:
    """Replace `path` by `content` in one step; a crash at any time leaves the old file whole.

    Raises:
        OSError: The disk is full or the folder is not writable; the old file is unchanged.
    """
    if path.is_symlink():
        path = path.resolve()  # the link stays
    data = content.encode("utf-8") if isinstance(content, str) else content
    parts = [data] if isinstance(data, bytes) else data
    special = path.exists() and not path.is_file()  # /dev/null must not become a file
    with path.open("wb") if special else replacing(path) as file:
        file.writelines(parts)


def link_ours(link: Path, target: Path) -> bool:
    """Make `link` point to a file in `STATE`, unless a file of the user is in its place.

    Returns:
        Whether it does.

    Raises:
        OSError: It cannot be made.
    """
    ours = link.parent.name == STATE or (link.is_symlink() and STATE in link.readlink().parts)
    if not ours and os.path.lexists(link):
        return False
    link.unlink(missing_ok=True)
    link.symlink_to(os.path.relpath(target, link.parent))
    return True


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file, which is created with its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


@contextmanager
def temporary_folder(kind: str) -> Iterator[Path]:
    """Create a folder in TMPDIR and remove it afterwards; `sweep` does if the process is killed."""
    folder = Path(tempfile.mkdtemp(prefix=f"autoresearch-{kind}-"))
    with open(folder / _OWNER, "w") as owner:
        with suppress(OSError):  # without locks, as on some network disks, nothing is swept
            fcntl.flock(owner, fcntl.LOCK_EX)
        owner.write(f"{os.getpid()}\n")
        owner.flush()
        try:
            yield folder
        finally:
            remove_tree(folder)


def remove_tree(folder: Path) -> None:
    """Remove a folder with everything in it, or a file, as far as possible."""
    if folder.is_symlink() or not folder.is_dir():
        with suppress(OSError):
            folder.unlink()
        return
    with suppress(RecursionError):
        shutil.rmtree(folder, ignore_errors=True)
    if folder.exists():  # a thousand nested folders, or some without permissions
        for command in (["chmod", "-R", "u+rwx"], ["rm", "-rf"]):
            subprocess.run([*command, str(folder)], check=False, stderr=subprocess.DEVNULL)


def sweep(root: Path) -> None:
    """Remove the temporary files and folders of killed processes.

    Args:
        root: Folder of a project.
    """
    _drop_dead(root / STATE / "tmp", "*")
    for path in Path(tempfile.gettempdir()).glob(f"autoresearch-*/{_OWNER}"):
        # of another user; in use; removed meanwhile
        with suppress(OSError), open(path, "r+") as owner:
            if os.fstat(owner.fileno()).st_uid == os.getuid() and owner.read():
                fcntl.flock(owner, fcntl.LOCK_EX | fcntl.LOCK_NB)
                remove_tree(path.parent)
