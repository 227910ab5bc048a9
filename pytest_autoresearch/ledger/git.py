"""Git as a projection of the ledger, by plumbing commands: the user's tree is never touched.

No checkout, no use of the user's index, no hooks, no signing. Objects and refs are synced to the
disk. Refs follow the ledger and can be projected again at any time.
"""

from __future__ import annotations

import codecs
import os
import tempfile
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.text import harmless

if TYPE_CHECKING:
    from git import Repo

TRAILER = "Autoresearch-"

IDENTITY = "pytest-autoresearch <autoresearch@localhost>"
"""Author of our commits where the user has configured none."""

CONFIG = ("core.hooksPath=/dev/null", "core.quotePath=false", "core.fsync=all")

TRIES = 3
"""Attempts at a commit: a ``git gc`` may delete its objects before a ref points at them."""

LEDGER = "ledger"
"""Name of the ref under ``refs/autoresearch/<tag>/`` that holds the copy of the ledger."""

PLAIN, LINK = "100644", "120000"
"""Git's modes of a plain file and of a symbolic link."""

EXPORTS = 4
"""Exported commits that are cached: a champion, a parent and the baseline."""


def _text(message: str) -> str:
    """Return a message that git accepts and any terminal can show."""
    return harmless(message.replace("\r\n", "\n"), keep="\n\t\xa0")


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


class Repository:
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
        prefix = root.resolve().relative_to(top).as_posix()
        self._prefix = "" if prefix == "." else prefix + "/"

    @classmethod
    def open(cls, root: Path) -> Repository:
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
        output = self._git_bytes("cat-file", "--batch", stdin=_lines(objects))
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
            status, output, _ = self._run("cat-file", "--batch-check", stdin=_lines(names))
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

    # ------------------------------------------------------------------ writing

    def describe(self, subject: str, body: str, trailers: Mapping[str, str]) -> str:
        """Return author, committer and message of a new commit, in git's own form.

        Args:
            subject: First line of the message.
            body: Rest of the message.
            trailers: Facts for machines; keys get the prefix ``Autoresearch-``.
        """
        first = " ".join(subject.split())[:100] or "mutation"
        lines = "\n".join(
            f"{TRAILER}{key}: {' '.join(str(value).split())}"
            for key, value in trailers.items()
            if value
        )
        now = f"{int(time.time())} {time.strftime('%z')}"
        signatures = "\n".join(f"{role} {who} {now}" for role, who in self._identity.items())
        return f"{signatures}\n\n" + _text(f"{first}\n\n{body.strip()}\n\n{lines}\n")

    def commit(
        self, parent: str, files: Mapping[str, str], text: str, ref: str, *, packed: bool = False
    ) -> str:
        """Create a commit, `parent`'s tree with `files` replaced, and let `ref` point at it.

        One process writes both. If only the ref cannot be written, `project` does it later. Equal
        arguments make the same commit again.

        Args:
            parent: Commit it descends from.
            files: Editable files, path to text.
            text: Author, committer and message, from `describe`.
            ref: Full name of a ref.
            packed: Store the objects in a pack, where they hide damaged ones of the same names.

        Returns:
            The commit's id.
        """
        entries = self._entries(parent, files) if files else {}
        contents = {}
        for name, code in files.items():
            mark = codecs.BOM_UTF8 if name in self._marked else b""
            mode, _ = entries.get(name, (PLAIN, ""))
            contents[self._prefix + name] = (mode, mark + code.encode())
        return self._import(ref, text, contents, parent, packed)

    def _import(
        self,
        ref: str,
        text: str,
        files: Mapping[str, tuple[str, bytes]],
        parent: str = "",
        packed: bool = False,
    ) -> str:
        """Write a commit and its ref; an existing ref is moved."""
        signatures, _, message = text.partition("\n\n")
        stream = [_lines([f"commit {ref}", "mark :1", signatures]), _data(message.encode())]
        if parent:
            stream.append(_lines([f"from {parent}"]))
        for name, (mode, content) in files.items():
            stream += [_lines([f"M {mode} inline {_quoted(name)}"]), _data(content)]
        stream.append(b"\nget-mark :1\n")
        limit = f"fastimport.unpackLimit={0 if packed else 100}"
        for _ in range(TRIES):
            status, output, errors = self._run(
                "-c", limit, "fast-import", "--quiet", "--force", stdin=b"".join(stream)
            )
            commit = output.decode().strip()
            if commit and (not status or self._resolves(f"{commit}^{{tree}}")):
                return commit
        raise RepositoryError(f"git fast-import failed: {errors}")

    def store_ledger(self, tag: str, data: bytes) -> None:
        """Make the campaign's ledger ref hold `data`, in a commit without a parent."""
        text = self.describe(f"Ledger of campaign {tag}", "", {})
        self._import(attempt_ref(tag, LEDGER), text, {LEDGER: (PLAIN, data)})

    def load_ledger(self, tag: str) -> bytes | None:
        """Return what `store_ledger` stored, or None."""
        [data] = self._blobs([f"{attempt_ref(tag, LEDGER)}:{LEDGER}"])
        return data

    # ------------------------------------------------------------------ refs

    def project(self, tag: str, champions: Sequence[str], tried: Mapping[str, str]) -> list[str]:
        """Set the campaign's refs from the ledger: as many as can be set.

        Args:
            tag: ``refs/heads/autoresearch/<tag>`` becomes the last champion's commit,
                ``refs/autoresearch/<tag>/<name>`` holds every mutation tried.
            champions: Commits of all champions; the branch is moved only from one of them.
            tried: Attempt name to commit, or to '' if it must have no ref.

        Returns:
            Why refs could not be set, a line each.
        """
        wanted = {attempt_ref(tag, name): sha for name, sha in tried.items()}
        branch = branch_ref(tag)
        few = len(wanted) < 20
        try:
            known = self._refs(*(wanted if few else [attempt_ref(tag, "")]), branch)
            updates = [
                f"update {ref} {sha}" if sha else f"delete {ref}"
                for ref, sha in wanted.items()
                if known.get(ref, "") != sha
            ]
            problems = self._update(updates)
            if known.get(branch) != champions[-1]:
                old = self.check_branch(tag, champions) or "0" * len(champions[-1])
                problems += self._update([f"update {branch} {champions[-1]} {old}"])
        except RepositoryError as error:
            return [str(error)]
        return problems

    def _update(self, updates: Sequence[str]) -> list[str]:
        """Update refs in one transaction; if it fails, by halves, to leave out what fails."""
        if not updates:
            return []
        try:
            self._git("update-ref", "--stdin", stdin=_lines(updates))
        except RepositoryError as error:
            if not (half := len(updates) // 2):
                return [str(error)]
            return self._update(updates[:half]) + self._update(updates[half:])
        return []

    def _refs(self, *patterns: str) -> dict[str, str]:
        listing = self._git("for-each-ref", "--format=%(refname) %(objectname)", *patterns)
        return dict(line.split(" ", 1) for line in listing.splitlines())

    def check_branch(self, tag: str, ours: Sequence[str]) -> str:
        """Check that the campaign's branch may be created or moved.

        Args:
            tag: Of the campaign.
            ours: Commits of every champion in the ledger; empty for a new campaign.

        Returns:
            The branch's commit, or '' if there is no such branch.

        Raises:
            RepositoryError: It is checked out somewhere, holds a foreign commit, or another branch
                has its name as a folder.
        """
        ref = branch_ref(tag)
        short = ref.removeprefix("refs/heads/")
        refs = self._refs("refs/heads/autoresearch", attempt_ref(tag, LEDGER))
        for other in (one.removeprefix("refs/heads/") for one in refs):
            if other == "autoresearch" or other.startswith(f"{short}/"):
                new = other.replace("/", "-") + "-old"
                raise RepositoryError(
                    f"branch {other} is in the way of branch {short}; rename it (git branch -m "
                    f"{other} {new})"
                )
        for line in self._git("worktree", "list", "--porcelain").splitlines():
            if line == f"branch {ref}":
                raise RepositoryError(
                    f"branch {short} is checked out, and research moves it; check out another "
                    "branch (git switch -), or give another --autoresearch-tag"
                )
        tip = refs.get(ref, "")
        if tip and not ours and attempt_ref(tag, LEDGER) in refs:
            raise RepositoryError(
                f"campaign {tag!r} has lost its ledger, and git has a copy; run: python -m "
                "pytest_autoresearch restore, or give another --autoresearch-tag"
            )
        if tip and tip not in ours:
            raise RepositoryError(
                f"branch {short} holds commit {tip[:10]}, which does not belong to this campaign; "
                f"rename it (git branch -m {short} {short}-old) or give another --autoresearch-tag"
            )
        return tip

    def create_branch(self, name: str, commit: str) -> None:
        """Create a branch; an existing one is never moved.

        Raises:
            RepositoryError: It exists, or the name is not one git accepts.
        """
        ref = f"refs/heads/{name}"
        if not self._git("check-ref-format", ref, check=False) and self._refs(ref):
            raise RepositoryError(f"branch {name} exists; give another --branch")
        self._git("update-ref", ref, commit, "0" * len(commit))

    def drop_campaign(self, tag: str) -> None:
        """Delete a campaign's branch and refs; its commits stay until git collects them."""
        refs = self._refs(attempt_ref(tag, ""), branch_ref(tag))
        self._git("update-ref", "--stdin", stdin=_lines(f"delete {r} {refs[r]}" for r in refs))

    def delete(self, ref: str) -> None:
        """Delete a ref of ours."""
        self._git("update-ref", "-d", ref)

    # ------------------------------------------------------------------ running git

    @cached_property
    def _identity(self) -> dict[str, str]:
        """Author and committer of our commits, as git has them configured."""
        found = {}
        for role in ("author", "committer"):
            variable = f"GIT_{role.upper()}_IDENT"
            who = self._git("-c", "user.useConfigOnly=true", "var", variable, check=False)
            found[role] = who.rsplit(" ", 2)[0] or IDENTITY
        return found

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


def branch_ref(tag: str) -> str:
    """Return the full name of a campaign's branch."""
    return f"refs/heads/autoresearch/{tag}"


def attempt_ref(tag: str, name: str) -> str:
    """Return the full name of the ref of an attempt, or of `LEDGER`."""
    return f"refs/autoresearch/{tag}/{name}"


def _lines(lines: Iterable[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape")


def _data(content: bytes) -> bytes:
    """Return contents as ``git fast-import`` reads them."""
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
