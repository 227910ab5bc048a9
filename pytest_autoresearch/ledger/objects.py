"""Read a user's repository by plumbing commands; nothing of it is touched.

No checkout, no use of the user's index, no hooks, no signing.
"""

from __future__ import annotations

import codecs
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from git import Repo

CONFIG = ("core.hooksPath=/dev/null", "core.quotePath=false", "core.fsync=all")

PLAIN, LINK = "100644", "120000"
"""Git's modes of a plain file and of a symbolic link."""

EXPORTS = 4
"""Exported commits that are cached: a champion, a parent and the baseline."""


class RepositoryError(Exception):
    """The repository cannot be used; one line with the remedy."""


class CommitLost(RepositoryError):
    """Git cannot read a commit or its files, though it may have had them."""


@dataclass(frozen=True)
class Export:
    """The tracked files of a commit.

    Attributes:
        files: Path to contents; a symbolic link contains its target.
        modes: Path to git's mode, for executable files and symbolic links.
    """

    files: Mapping[str, bytes]
    modes: Mapping[str, str]


class Objects:
    """One user's repository.

    Attributes:
        root: The folder that paths are relative to; may lie below the top level.
    """

    def __init__(self, repo: Repo, root: Path) -> None:
        self._repo = repo
        self.root = root
        self._exports: dict[str, Export] = {}
        self._marked: set[str] = set()
        top = Path(repo.working_tree_dir or repo.git_dir).resolve()
        # Not those of a git hook or of another repository, which the environment may name.
        self._places = {"GIT_WORK_TREE": str(top), "GIT_INDEX_FILE": f"{repo.git_dir}/index"}
        prefix = root.resolve().relative_to(top).as_posix()
        self._prefix = "" if prefix == "." else prefix + "/"

    @classmethod
    def open(cls, root: Path) -> Self:
        """Open the repository that holds `root`.

        Raises:
            RepositoryError: No git, no repository, a bare one, or one that git refuses.
        """
        try:
            import git
        except ImportError as error:
            raise RepositoryError(f"git cannot be used ({error}); install git") from None
        try:
            repo = git.Repo(root, search_parent_directories=True)
        except (git.InvalidGitRepositoryError, git.NoSuchPathError):
            raise RepositoryError(
                f"{root} is not in a git repository; run: git init && git add . && git commit"
            ) from None
        if repo.bare:
            raise RepositoryError(f"{root} is a bare repository; run in a clone with files")
        repository = cls(repo, root)
        repository._git("rev-parse", "--git-dir")  # fails with git's reason and remedy
        if not repository._resolves("HEAD"):
            raise RepositoryError(
                f"the repository of {root} has no commits; run: git add . && git commit"
            )
        return repository

    # ------------------------------------------------------------------ looking

    def head(self) -> str:
        """Return the commit checked out."""
        return self._git("rev-parse", "HEAD")

    def branch(self) -> str:
        """Return the branch checked out, or '' when detached."""
        return self._git("symbolic-ref", "--quiet", "--short", "HEAD", check=False)

    def changes(self, names: Iterable[str] = ()) -> list[str]:
        """Return tracked files that differ from the commit checked out, as git compares them.

        Args:
            names: Files below the root to look at; none: all of the repository.
        """
        paths = [f":(top,literal){self._prefix}{name}" for name in names]
        listing = self._git_bytes(  # git diff would write the index
            "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no", "--", *paths
        )
        return [os.fsdecode(entry[3:]) for entry in listing.split(b"\0") if entry]

    def check_files(self, names: Sequence[str]) -> None:
        """Check that mutations can be made of these files of the commit checked out.

        Raises:
            RepositoryError: One is not in the commit, changed since, a link, or not UTF-8.
        """
        for name, (mode, _) in self._entries("HEAD", names).items():
            if mode == LINK:
                raise RepositoryError(
                    f"{name} is a symbolic link in git; commit the file itself in its place, or "
                    "name the link's target in Experiment(files=…)"
                )
        self.read("HEAD", names)
        if dirty := [name.removeprefix(self._prefix) for name in self.changes(names)]:
            raise RepositoryError(
                f"{', '.join(dirty)} has uncommitted changes: commit them "
                f"(git commit {' '.join(dirty)}) to research them, or git stash to leave them out"
            )

    def read_bytes(self, commit: str, names: Iterable[str]) -> dict[str, bytes]:
        """Return files of a commit.

        Raises:
            CommitLost: Git cannot read the commit or one of the files.
            RepositoryError: The commit lacks one of them.
        """
        names = list(names)
        try:
            blobs = self._blobs([f"{commit}:{self._prefix}{name}" for name in names])
        except RepositoryError as error:  # an object is damaged
            raise CommitLost(f"commit {commit[:10]} cannot be read: {error}") from None
        files = {name: data for name, data in zip(names, blobs, strict=True) if data is not None}
        missing = [name for name in names if name not in files]
        for name in missing:
            object_name = f"{commit}:{self._prefix}{name}"
            if not self._resolves(f"{commit}^{{tree}}") or self._resolves(object_name):
                raise CommitLost(
                    f"commit {commit[:10]} cannot be read; run: python -m pytest_autoresearch "
                    "doctor, or git fetch it"
                )
        if missing:
            raise RepositoryError(
                f"{missing[0]} is not in commit {commit[:10]}; "
                f"run: git add {missing[0]} && git commit"
            )
        return files

    def _blobs(self, objects: Sequence[str]) -> list[bytes | None]:
        """Return the contents of objects, by one git process; None for those that are missing."""
        if not objects:
            return []
        output = self._git_bytes("cat-file", "--batch", stdin=lines_of(objects))
        contents: list[bytes | None] = []
        at = 0
        for _ in objects:
            end = output.index(b"\n", at)
            header = output[at:end].split(b" ")
            at = end + 1
            if len(header) == 3 and header[1] == b"blob":
                size = int(header[2])
                contents.append(output[at : at + size])
                at += size + 1
            else:
                contents.append(None)
        return contents

    def missing(self, objects: Sequence[str]) -> set[str]:
        """Return those objects (``COMMIT`` or ``COMMIT:PATH``) that git does not find."""
        missing: set[str] = set()
        while objects:
            names = [one.replace(":", f":{self._prefix}", 1) for one in objects]
            status, output, _ = self._run("cat-file", "--batch-check", stdin=lines_of(names))
            answers = output.splitlines()
            missing |= {
                one
                for one, line in zip(objects, answers, strict=False)
                if line.endswith(b" missing")
            }
            done = len(answers)
            if status:  # git ends at a damaged object
                missing.update(objects[done : done + 1])
            objects = objects[done + 1 :] if status else ()
        return missing

    def read(self, commit: str, names: Iterable[str]) -> dict[str, str]:
        """Return text files of a commit; `commit` writes a byte order mark again.

        Raises:
            CommitLost: Git cannot read the commit or one of the files.
            RepositoryError: The commit lacks one, or it is not UTF-8.
        """
        texts = {}
        for name, data in self.read_bytes(commit, names).items():
            if data.startswith(codecs.BOM_UTF8):
                self._marked.add(name)
            try:
                texts[name] = data.decode("utf-8-sig")
            except UnicodeDecodeError:
                raise RepositoryError(f"{name} is not UTF-8 text; save it as UTF-8") from None
        return texts

    def export(self, commit: str) -> Export:
        """Return every tracked file below the root; the latest exports are cached."""
        if commit not in self._exports:
            entries = self._entries(commit, ())
            contents = self._blobs([sha for _, sha in entries.values()])
            while len(self._exports) >= EXPORTS:
                del self._exports[next(iter(self._exports))]
            self._exports[commit] = Export(
                {n: data for n, data in zip(entries, contents, strict=True) if data is not None},
                {name: mode for name, (mode, _) in entries.items() if mode != PLAIN},
            )
        return self._exports[commit]

    def _entries(self, commit: str, names: Iterable[str]) -> dict[str, tuple[str, str]]:
        """Return path to mode and id of the files of a commit below the root, all or `names`."""
        paths = filter(None, [self._prefix + name for name in names or ("",)])
        listing = self._git_bytes("ls-tree", "-r", "-z", "--full-tree", commit, *paths)
        entries = {}
        for entry in filter(None, listing.split(b"\0")):
            header, _, path = entry.partition(b"\t")
            mode, kind, sha = header.decode().split()
            if kind == "blob":
                entries[os.fsdecode(path).removeprefix(self._prefix)] = (mode, sha)
        return entries

    def _resolves(self, name: str) -> bool:
        """Return whether git finds the object of a name."""
        return bool(self._git("rev-parse", "--verify", "-q", name, check=False))

    # ------------------------------------------------------------------ running git

    def _run(self, *args: str, stdin: bytes = b"") -> tuple[int, bytes, str]:
        """Run git; return its exit status, its output and its messages on one line."""
        import git

        settings = [part for setting in CONFIG for part in ("-c", setting)]
        with tempfile.TemporaryFile() as source:
            source.write(stdin)
            source.seek(0)
            try:
                status, output, errors = self._repo.git.execute(
                    ["git", "--no-optional-locks", *settings, *args],
                    istream=source,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    with_extended_output=True,
                    with_exceptions=False,
                    env=self._places,
                )
            except git.GitCommandNotFound:
                raise RepositoryError("git is not on PATH; install it") from None
        assert isinstance(output, bytes)
        return status, output, " ".join(str(errors).split())[:300]

    def _git_bytes(self, *args: str, stdin: bytes = b"", check: bool = True) -> bytes:
        status, output, errors = self._run(*args, stdin=stdin)
        if status and check:
            raise RepositoryError(f"git {args[0]} failed: {errors or f'exit status {status}'}")
        return b"" if status else output

    def _git(self, *args: str, stdin: bytes = b"", check: bool = True) -> str:
        output = self._git_bytes(*args, stdin=stdin, check=check)
        return output.decode("utf-8", errors="surrogateescape").strip()


def lines_of(lines: Iterable[str]) -> bytes:
    """Return lines as git reads them."""
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")
