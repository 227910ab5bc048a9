"""Git as a projection of the ledger, by plumbing commands: the user's tree is never touched.

No checkout, no use of the user's index, no hooks, no signing. Commits are written as objects first;
refs follow the ledger and can be projected again at any time.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.text import harmless

if TYPE_CHECKING:
    from git import Repo

TRAILER = "Autoresearch-"

_IDENTITY = ("pytest-autoresearch", "autoresearch@localhost")

LEDGER = "ledger"
"""Name of the ref under ``refs/autoresearch/<tag>/`` that holds the copy of the ledger."""

EXPORTS = 4
"""Exported commits that are cached: a champion, a parent and the baseline."""


def _text(message: str) -> str:
    """Return a message that git accepts and any terminal can show."""
    return harmless(message.replace("\r\n", "\n"), keep="\n\t\xa0")


class RepositoryError(Exception):
    """The repository cannot be used; one line with the remedy."""


class Repository:
    """One user's repository.

    Attributes:
        root: The folder that paths are relative to; may lie below the top level.
    """

    def __init__(self, repo: Repo, root: Path) -> None:
        self._repo = repo
        self.root = root
        self._exports: dict[str, Mapping[str, bytes]] = {}
        top = Path(repo.working_tree_dir or repo.git_dir).resolve()
        prefix = root.resolve().relative_to(top).as_posix()
        self._prefix = "" if prefix == "." else prefix + "/"

    @classmethod
    def open(cls, root: Path) -> Repository:
        """Open the repository that holds `root`.

        Raises:
            RepositoryError: No git, no repository, a bare one, or one without a commit.
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
        if not repo.head.is_valid():
            raise RepositoryError(
                f"the repository of {root} has no commits; run: git add . && git commit"
            )
        return cls(repo, root)

    # ------------------------------------------------------------------ looking

    def head(self) -> str:
        """Return the commit checked out."""
        return self._git("rev-parse", "HEAD")

    def branch(self) -> str:
        """Return the branch checked out, or '' when detached."""
        return self._git("symbolic-ref", "--quiet", "--short", "HEAD", check=False)

    def dirty(self, names: Iterable[str]) -> list[str]:
        """Return the names of files that differ from the commit checked out."""
        head = self.read_bytes("HEAD", names, missing_ok=True)
        return [
            name
            for name in names
            if head.get(name) is None
            or (self.root / name).read_bytes() != self._smudged(name, head)
        ]

    def _smudged(self, name: str, head: Mapping[str, bytes]) -> bytes:
        """Return a file as a checkout writes it, with line endings and filters applied."""
        return self._git_bytes("cat-file", "--filters", f"HEAD:{self._prefix}{name}")

    def read_bytes(
        self, commit: str, names: Iterable[str], missing_ok: bool = False
    ) -> dict[str, bytes]:
        """Return files of a commit.

        Raises:
            RepositoryError: The commit lacks one of them.
        """
        names = list(names)
        blobs = self._blobs([f"{commit}:{self._prefix}{name}" for name in names])
        files = {name: data for name, data in zip(names, blobs, strict=True) if data is not None}
        if not missing_ok and (missing := [name for name in names if name not in files]):
            raise RepositoryError(
                f"{missing[0]} is not in commit {commit[:10]}; "
                f"run: git add {missing[0]} && git commit"
            )
        return files

    def _blobs(self, objects: Sequence[str]) -> list[bytes | None]:
        """Return the contents of objects, by one git process; None for those that are missing."""
        if not objects:
            return []
        output = self._git_bytes(
            "cat-file", "--batch", stdin="".join(f"{one}\n" for one in objects).encode()
        )
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

    def read(self, commit: str, names: Iterable[str]) -> dict[str, str]:
        """Return text files of a commit.

        Raises:
            RepositoryError: The commit lacks one, or it is not UTF-8.
        """
        texts = {}
        for name, data in self.read_bytes(commit, names).items():
            try:
                texts[name] = data.decode("utf-8")
            except UnicodeDecodeError:
                raise RepositoryError(f"{name} is not UTF-8 text; save it as UTF-8") from None
        return texts

    def export(self, commit: str) -> Mapping[str, bytes]:
        """Return every tracked file below the root, path to contents; the latest are cached."""
        if commit not in self._exports:
            tree = f"{commit}:{self._prefix}".rstrip("/")
            entries = self._git_bytes("ls-tree", "-r", "-z", tree).split(b"\0")
            blobs = {}
            for entry in filter(None, entries):
                header, _, name = entry.partition(b"\t")
                _, kind, sha = header.split()
                if kind == b"blob":
                    blobs[os.fsdecode(name)] = sha.decode()
            contents = self._blobs(list(blobs.values()))
            while len(self._exports) >= EXPORTS:
                del self._exports[next(iter(self._exports))]
            self._exports[commit] = {
                name: data for name, data in zip(blobs, contents, strict=True) if data is not None
            }
        return self._exports[commit]

    def has(self, commit: str) -> bool:
        """Return whether the repository has a commit."""
        return bool(self._git("rev-parse", "--verify", "-q", f"{commit}^{{commit}}", check=False))

    def diff(self, old: str, new: str) -> str:
        """Return the unified diff between two commits below the root."""
        return self._git("diff", "--no-color", "--no-ext-diff", old, new, "--", self._prefix or ".")

    def message(self, commit: str) -> str:
        """Return a commit's whole message."""
        return self._git("log", "-1", "--format=%B", commit)

    def trailers(self, commit: str) -> dict[str, str]:
        """Return our machine-readable trailers of a commit, without their prefix."""
        pattern = re.compile(rf"^{TRAILER}([A-Za-z-]+): ?(.*)$", re.MULTILINE)
        return dict(pattern.findall(self.message(commit)))

    # ------------------------------------------------------------------ writing

    def commit(
        self,
        parent: str,
        files: Mapping[str, str],
        *,
        subject: str,
        body: str,
        trailers: Mapping[str, str],
    ) -> str:
        """Create a commit object: `parent`'s tree with `files` replaced; no ref points at it yet.

        Args:
            parent: Commit it descends from.
            files: Editable files, path to text.
            subject: First line of the message.
            body: Rest of the message.
            trailers: Facts for machines; keys get the prefix ``Autoresearch-``.

        Returns:
            The commit's id.
        """
        paths = {self._prefix + name: text for name, text in files.items()}
        with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._git("read-tree", parent, env=index)
            if paths:
                literal = [f":(top,literal){path}" for path in paths]
                staged = self._git_bytes("ls-files", "-s", "-z", "--", *literal, env=index)
                modes = {
                    os.fsdecode(entry.partition(b"\t")[2]): entry[:6].decode()
                    for entry in filter(None, staged.split(b"\0"))
                }
                entries = "".join(
                    f"{modes.get(path, '100644')} {self._hash_object(text.encode())}\t{path}\0"
                    for path, text in paths.items()
                )
                self._git("update-index", "-z", "--index-info", stdin=entries.encode(), env=index)
            tree = self._git("write-tree", env=index)
        first = " ".join(subject.split())[:100] or "mutation"
        lines = "\n".join(
            f"{TRAILER}{key}: {' '.join(str(value).split())}"
            for key, value in trailers.items()
            if value
        )
        message = _text(f"{first}\n\n{body.strip()}\n\n{lines}\n").encode()
        return self._commit_tree(tree, message, "-p", parent)

    def _commit_tree(self, tree: str, message: bytes, *parents: str) -> str:
        return self._git(
            "commit-tree", "--no-gpg-sign", tree, *parents, "-F", "-",
            stdin=message, env=self._identity,
        )  # fmt: skip

    def _hash_object(self, data: bytes) -> str:
        return self._git("hash-object", "-w", "--stdin", stdin=data)

    def store_ledger(self, tag: str, data: bytes) -> None:
        """Make the campaign's ledger ref hold `data`, in a commit without a parent."""
        entry = f"100644 blob {self._hash_object(data)}\t{LEDGER}\0"
        tree = self._git("mktree", "-z", stdin=entry.encode())
        commit = self._commit_tree(tree, f"Ledger of campaign {tag}\n".encode())
        self._git("update-ref", f"refs/autoresearch/{tag}/{LEDGER}", commit)

    def load_ledger(self, tag: str) -> bytes | None:
        """Return what `store_ledger` stored, or None."""
        [data] = self._blobs([f"refs/autoresearch/{tag}/{LEDGER}:{LEDGER}"])
        return data

    def project(self, tag: str, champion: str, tried: Mapping[str, str]) -> None:
        """Set the campaign's refs from the ledger.

        Args:
            tag: ``refs/heads/autoresearch/<tag>`` becomes the champion's commit,
                ``refs/autoresearch/<tag>/<name>`` holds every mutation tried.
            champion: Commit of the champion.
            tried: Attempt name to commit.
        """
        wanted = {f"refs/autoresearch/{tag}/{name}": sha for name, sha in tried.items()}
        wanted[self.branch_ref(tag)] = champion
        few = len(wanted) < 20
        known = self._refs(
            *(wanted if few else (f"refs/autoresearch/{tag}/", self.branch_ref(tag)))
        )
        updates = [f"update {ref} {sha}" for ref, sha in wanted.items() if known.get(ref) != sha]
        if updates:
            self._git("update-ref", "--stdin", stdin="\n".join([*updates, ""]).encode())

    @staticmethod
    def branch_ref(tag: str) -> str:
        """Return the full name of a campaign's branch."""
        return f"refs/heads/autoresearch/{tag}"

    def _refs(self, *patterns: str) -> dict[str, str]:
        listing = self._git("for-each-ref", "--format=%(refname) %(objectname)", *patterns)
        return dict(line.split(" ", 1) for line in listing.splitlines())

    def check_branch(self, tag: str, ours: Sequence[str]) -> None:
        """Check that the campaign's branch may be moved.

        Args:
            tag: Of the campaign.
            ours: Commits of every champion in the ledger; empty for a new campaign.

        Raises:
            RepositoryError: It is checked out somewhere, or holds a foreign commit.
        """
        ref = self.branch_ref(tag)
        short = ref.removeprefix("refs/heads/")
        for line in self._git("worktree", "list", "--porcelain").splitlines():
            if line == f"branch {ref}":
                raise RepositoryError(
                    f"branch {short} is checked out, and research moves it; check out another "
                    "branch (git switch -), or give another --autoresearch-tag"
                )
        tip = self._refs(ref).get(ref)
        if tip is not None and tip not in ours:
            raise RepositoryError(
                f"branch {short} holds commit {tip[:10]}, which does not belong to this campaign; "
                f"rename it (git branch -m {short} {short}-old) or give another --autoresearch-tag"
            )

    def tried(self, tag: str) -> dict[str, str]:
        """Return attempt name to commit of every attempt under a campaign's refs."""
        prefix = f"refs/autoresearch/{tag}/"
        names = {ref.removeprefix(prefix): sha for ref, sha in self._refs(prefix).items()}
        names.pop(LEDGER, None)
        return names

    def changes(self) -> list[str]:
        """Return tracked files that differ from the commit checked out, staged or not."""
        listing = self._git_bytes(  # git diff would write the index
            "status", "--porcelain", "-z", "--no-renames", "--untracked-files=no",
            env={"GIT_OPTIONAL_LOCKS": "0"},
        )  # fmt: skip
        return [os.fsdecode(entry[3:]) for entry in listing.split(b"\0") if entry]

    def tree(self, commit: str) -> str:
        """Return the id of a commit's tree: equal ids, equal files."""
        return self._git("rev-parse", f"{commit}^{{tree}}")

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
        refs = self._refs(f"refs/autoresearch/{tag}/", self.branch_ref(tag))
        deletions = "".join(f"delete {ref} {sha}\n" for ref, sha in refs.items())
        self._git("update-ref", "--stdin", stdin=deletions.encode())

    # ------------------------------------------------------------------ running git

    def _environment(self, extra: Mapping[str, str] | None) -> dict[str, str]:
        env = dict(extra or {})
        config = {
            "core.hooksPath": os.devnull,
            "commit.gpgSign": "false",
            "core.quotePath": "false",
        }
        env["GIT_CONFIG_COUNT"] = str(len(config))
        for i, (key, value) in enumerate(config.items()):
            env[f"GIT_CONFIG_KEY_{i}"], env[f"GIT_CONFIG_VALUE_{i}"] = key, value
        return env

    @cached_property
    def _identity(self) -> dict[str, str]:
        """Author and committer of our commits, where the user has configured none."""
        env = {}
        for role in ("AUTHOR", "COMMITTER"):
            for part, fallback in zip(("name", "email"), _IDENTITY, strict=True):
                variable = f"GIT_{role}_{part.upper()}"
                if variable not in os.environ and not self._configured(f"user.{part}"):
                    env[variable] = fallback
        return env

    def _configured(self, key: str) -> bool:
        section, _, option = key.partition(".")
        with self._repo.config_reader() as reader:
            return bool(reader.get_value(section, option, default=""))

    def _git_bytes(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> bytes:
        import git

        try:
            with tempfile.TemporaryFile() as source:
                source.write(stdin or b"")
                source.seek(0)
                output = self._repo.git.execute(
                    ["git", *args],
                    istream=source,
                    stdout_as_string=False,
                    strip_newline_in_stdout=False,
                    env=self._environment(env),
                )
        except git.GitCommandError as error:
            if not check:
                return b""
            detail = " ".join(str(error.stderr).split()) or str(error)
            raise RepositoryError(f"git {args[0]} failed: {detail[:300]}") from None
        except git.GitCommandNotFound:
            raise RepositoryError("git is not on PATH; install it") from None
        assert isinstance(output, bytes)
        return output

    def _git(
        self,
        *args: str,
        stdin: bytes | None = None,
        env: Mapping[str, str] | None = None,
        check: bool = True,
    ) -> str:
        output = self._git_bytes(*args, stdin=stdin, env=env, check=check)
        return output.decode("utf-8", errors="surrogateescape").strip()
