"""Commits that git has lost: found, and made again from the ledger.

A power cut can empty the newest objects of a repository, and ``git gc --prune=now`` can delete them
while they are written. The ledger holds the edits of every attempt and what else its commit is made
of, so the same commit can be made again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..core.proposal import EditError
from ..core.records import Attempt
from ..source.edits import apply
from .git import TRIES, CommitLost, Repository, RepositoryError, attempt_ref
from .store import Ledger


class Commits:
    """The commits of a campaign.

    Args:
        repository: Of the user.
        ledger: Of the campaign.
        names: The editable files.
    """

    def __init__(self, repository: Repository, ledger: Ledger, names: Sequence[str]) -> None:
        self._repository, self._ledger, self._names = repository, ledger, names

    def read(self, commit: str) -> dict[str, str]:
        """Return the editable files of a commit; one that is lost is made again.

        Raises:
            CommitLost: It cannot be made.
        """
        try:
            return self._repository.read(commit, self._names)
        except CommitLost:
            damaged = [one for one in self._ledger.attempts() if one.commit == commit]
            self.remake([*self.lost(), *damaged])
            return self._repository.read(commit, self._names)

    def create(self, parent: str, files: Mapping[str, str], text: str, ref: str) -> str:
        """Create a commit, as `Repository.commit`; its lost ancestors are made again."""
        try:
            return self._repository.commit(parent, files, text, ref)
        except RepositoryError:
            self.remake(self.lost())
            return self._repository.commit(parent, files, text, ref)

    def lost(self) -> list[Attempt]:
        """Return the attempts whose commit, or one of its editable files, git does not find."""
        wanted = {
            attempt.id: [attempt.commit, *(f"{attempt.commit}:{name}" for name in self._names)]
            for attempt in self._ledger.attempts()
            if attempt.commit
        }
        missing = self._repository.missing([one for parts in wanted.values() for one in parts])
        return [self._ledger.attempt(i) for i in wanted if not missing.isdisjoint(wanted[i])]

    def remake(self, attempts: Sequence[Attempt]) -> list[Attempt]:
        """Make the commits of attempts again, those they build on first.

        Returns:
            The attempts whose commit cannot be made: their parent is lost, or they were made by a
            version that did not record enough.
        """
        ordered = sorted(attempts, key=lambda one: one.finished or 0.0)
        return [one for one in ordered if not any(self._remake(one) for _ in range(TRIES))]

    def _remake(self, attempt: Attempt) -> bool:
        recorded = self._ledger.commit_object(attempt.id)
        if not recorded or attempt.parent is None:
            return False
        parent, _, text = recorded.partition("\n")
        ref = attempt_ref(self._ledger.path.parent.name, attempt.name)
        try:
            before = self._repository.read(self._ledger.attempt(attempt.parent).commit, self._names)
            files = apply(before, attempt.edits)
            made = self._repository.commit(parent, files, text, ref, packed=True)
        except (RepositoryError, EditError):
            return False
        return made == attempt.commit
