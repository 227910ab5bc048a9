"""Git as the ledger's projection, made with plumbing: the user's tree is never touched.

No checkout, no index of the user's, no hooks, no signing. Commits are objects first; refs follow
the ledger afterwards and can be projected again at any time.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.text import harmless

if TYPE_CHECKING:
    from git import Repo

TRAILER = "Autoresearch-"

_IDENTITY = ("pytest-autoresearch", "autoresearch@localhost")


def _text(said: str) -> str:
    """A message that git takes and any terminal can show: no NUL, no half characters."""
    return harmless(said.replace("\r\n", "\n"), keep="\n\t\xa0")


class RepositoryError(Exception):
    """The repository cannot be worked with; one line with the remedy."""


class Repository:
    """One user's repository.

    Attributes:
        root: The folder that paths are relative to; may lie below the top level.
    """

    def __init__(self, repo: Repo, root: Path) -> None:
        self._repo = repo
        self.root = root
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
        """Return those of `names` whose file differs from the commit checked out."""
        head = self.read_bytes("HEAD", names, missing_ok=True)
        return [
            name
            for name in names
            if head.get(name) is None
            or (self.root / name).read_bytes() != self._smudged(name, head)
        ]

    def _smudged(self, name: str, head: Mapping[str, bytes]) -> bytes:
        """The file as a checkout would write it (line endings and filters applied)."""
        return self._git_bytes("cat-file", "--filters", f"HEAD:{self._prefix}{name}")

    def read_bytes(
        self, commit: str, names: Iterable[str], missing_ok: bool = False
    ) -> dict[str, bytes]:
        """Return files of a commit.

        Raises:
            RepositoryError: The commit lacks one of them.
        """
        found = {}
        for name in names:
            try:
                found[name] = self._git_bytes("cat-file", "blob", f"{commit}:{self._prefix}{name}")
            except RepositoryError:
                if not missing_ok:
                    raise RepositoryError(
                        f"{name} is not in commit {commit[:10]}; run: git add {name} && git commit"
                    ) from None
        return found

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

    def export(self, commit: str) -> dict[str, bytes]:
        """Return every tracked file below the root, path to contents."""
        listing = self._git_bytes("ls-tree", "-r", "-z", f"{commit}:{self._prefix}".rstrip("/"))
        files = {}
        for entry in listing.split(b"\0"):
            if not entry:
                continue
            header, _, name = entry.partition(b"\t")
            _mode, kind, sha = header.split()
            if kind == b"blob":
                files[os.fsdecode(name)] = self._git_bytes("cat-file", "blob", sha.decode())
        return files

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
        with tempfile.TemporaryDirectory(prefix="autoresearch-") as folder:
            index = {"GIT_INDEX_FILE": str(Path(folder) / "index")}
            self._git("read-tree", parent, env=index)
            for name, text in files.items():
                blob = self._hash_object(text.encode("utf-8"))
                path = self._prefix + name
                staged = self._git("ls-files", "--stage", "--", f":(top,literal){path}", env=index)
                mode = staged.split()[0] if staged else "100644"
                self._git(
                    "update-index", "--add", "--cacheinfo", f"{mode},{blob},{path}", env=index
                )
            tree = self._git("write-tree", env=index)
        first = " ".join(subject.split())[:100] or "mutation"
        lines = "\n".join(
            f"{TRAILER}{key}: {' '.join(str(value).split())}" for key, value in trailers.items()
        )
        message = _text(f"{first}\n\n{body.strip()}\n\n{lines}\n").encode()
        return self._git(
            "commit-tree", "--no-gpg-sign", tree, "-p", parent, "-F", "-", stdin=message
        )

    def _hash_object(self, data: bytes) -> str:
        return self._git("hash-object", "-w", "--stdin", stdin=data)

    def project(self, tag: str, champion: str, tried: Mapping[str, str]) -> None:
        """Make the campaign's refs say what the ledger says.

        Args:
            tag: ``refs/heads/autoresearch/<tag>`` becomes the champion's commit,
                ``refs/autoresearch/<tag>/<name>`` holds every mutation tried.
            champion: Commit of the champion.
            tried: Attempt name to commit.
        """
        known = self._refs(f"refs/autoresearch/{tag}/", f"refs/heads/autoresearch/{tag}")
        wanted = {f"refs/autoresearch/{tag}/{name}": sha for name, sha in tried.items()}
        wanted[self.branch_ref(tag)] = champion
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
        """See that the campaign's branch is ours to move.

        Args:
            tag: Of the campaign.
            ours: Every commit the ledger knows as a champion; empty for a new campaign.

        Raises:
            RepositoryError: It is checked out somewhere, or holds a commit that is not ours.
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
                f"branch {short} holds commit {tip[:10]}, which is not this campaign's; rename it "
                f"(git branch -m {short} {short}-old) or give another --autoresearch-tag"
            )

    def tried(self, tag: str) -> dict[str, str]:
        """Return attempt name to commit of everything under a campaign's refs."""
        prefix = f"refs/autoresearch/{tag}/"
        return {ref.removeprefix(prefix): sha for ref, sha in self._refs(prefix).items()}

    def changes(self) -> list[str]:
        """Return tracked files that differ from the commit checked out, staged or not."""
        listing = self._git_bytes("diff", "--name-only", "-z", "HEAD")
        return [os.fsdecode(name) for name in listing.split(b"\0") if name]

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
