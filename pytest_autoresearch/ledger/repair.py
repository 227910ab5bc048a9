"""Commits that git has lost: found, and made again from the ledger.

A power cut can empty the newest objects of a repository, and ``git gc --prune=now`` can delete them
while they are written. The ledger holds the edits of every attempt and what else its commit is made
of, so the same commit can be made again.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..core.proposal import EditError
from ..core.records import Attempt
from ..source.edits import apply
from .git import Repository, RepositoryError, attempt_ref
from .store import Ledger


def lost(repository: Repository, ledger: Ledger, names: Sequence[str]) -> list[Attempt]:
    """Return the attempts whose commit, or one of its files `names`, git does not find."""
    wanted = {
        attempt.id: [attempt.commit, *(f"{attempt.commit}:{name}" for name in names)]
        for attempt in ledger.attempts()
        if attempt.commit
    }
    missing = repository.missing([one for objects in wanted.values() for one in objects])
    return [ledger.attempt(i) for i, objects in wanted.items() if not missing.isdisjoint(objects)]


def remake(
    repository: Repository, ledger: Ledger, names: Sequence[str], attempts: Sequence[Attempt]
) -> list[Attempt]:
    """Make the commits of attempts again, those they build on first.

    Returns:
        The attempts whose commit cannot be made: their parent is lost, or they were made by a
        version that did not record enough.
    """
    unmade = []
    for attempt in sorted(attempts, key=lambda one: one.finished or 0.0):
        try:
            made = _remake(repository, ledger, names, attempt)
        except (RepositoryError, EditError):
            made = ""
        if made != attempt.commit:
            unmade.append(attempt)
    return unmade


def _remake(
    repository: Repository, ledger: Ledger, names: Sequence[str], attempt: Attempt
) -> str:
    recorded = ledger.commit_object(attempt.id)
    if not recorded or attempt.parent is None:
        return ""
    parent, _, text = recorded.partition("\n")
    files = apply(repository.read(ledger.attempt(attempt.parent).commit, names), attempt.edits)
    ref = attempt_ref(ledger.path.parent.name, attempt.name)
    return repository.commit(parent, files, text, ref, packed=True)
