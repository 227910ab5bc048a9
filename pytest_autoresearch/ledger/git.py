"""Git as a projection of the ledger: commits and refs, by plumbing commands.

Objects and refs are synced to the disk. Refs follow the ledger and can be projected again at any
time.
"""

from __future__ import annotations

import codecs
import secrets
import time
from collections.abc import Mapping, Sequence
from functools import cached_property

from ..core.text import harmless
from .objects import PLAIN, Objects, lines_of
from .objects import CommitLost as CommitLost
from .objects import Export as Export
from .objects import RepositoryError as RepositoryError

TRAILER = "Autoresearch-"

IDENTITY = "pytest-autoresearch <autoresearch@localhost>"
"""Author of our commits where the user has configured none."""

LEDGER = "ledger"
"""Name of the ref under ``refs/autoresearch/<tag>/`` that holds the copy of the ledger."""

TRIES = 6
"""Attempts at a commit: a ``git gc`` may delete its objects before a ref points at them."""


class Repository(Objects):
    """One user's repository, with the commits and refs of campaigns."""

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
        message = f"{first}\n\n{body.strip()}\n\n{lines}\n".replace("\r\n", "\n")
        return f"{signatures}\n\n" + harmless(message, keep="\n\t\xa0")

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
        stream = [lines_of([f"commit {ref}", "mark :1", signatures]), _data(message.encode())]
        if parent:
            stream.append(lines_of([f"from {parent}"]))
        for name, (mode, content) in files.items():
            stream += [lines_of([f"M {mode} inline {_quoted(name)}"]), _data(content)]
        stream.append(b"\nget-mark :1\n")
        limit = f"fastimport.unpackLimit={0 if packed else 100}"
        for number in range(TRIES):
            # Another pack than that of the last try, whose leftovers may be in the way.
            other = [b"blob\n", _data(secrets.token_bytes(8))] if number or packed else []
            status, output, errors = self._run(
                "-c", limit, "fast-import", "--quiet", "--force", stdin=b"".join([*other, *stream])
            )
            commit = output.decode().strip()
            if commit and (not status or self._resolves(f"{commit}^{{tree}}")):
                return commit
            time.sleep(0.05 * 2**number)
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
            self._git("update-ref", "--stdin", stdin=lines_of(updates))
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
        self._git("update-ref", "--stdin", stdin=lines_of(f"delete {r} {refs[r]}" for r in refs))

    def delete(self, ref: str) -> None:
        """Delete a ref of ours."""
        self._git("update-ref", "-d", ref)

    @cached_property
    def _identity(self) -> dict[str, str]:
        """Author and committer of our commits, as git has them configured."""
        found = {}
        for role in ("author", "committer"):
            variable = f"GIT_{role.upper()}_IDENT"
            who = self._git("-c", "user.useConfigOnly=true", "var", variable, check=False)
            found[role] = who.rsplit(" ", 2)[0] or IDENTITY
        return found


def branch_ref(tag: str) -> str:
    """Return the full name of a campaign's branch."""
    return f"refs/heads/autoresearch/{tag}"


def attempt_ref(tag: str, name: str) -> str:
    """Return the full name of the ref of an attempt, or of `LEDGER`."""
    return f"refs/autoresearch/{tag}/{name}"


def _data(content: bytes) -> bytes:
    """Return contents as ``git fast-import`` reads them."""
    return b"data %d\n%s\n" % (len(content), content)


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
