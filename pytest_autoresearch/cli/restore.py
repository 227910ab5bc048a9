"""The command ``restore``: a campaign's ledger from its copy in git."""

from __future__ import annotations

from pathlib import Path

from ..campaign.project import default_tag
from ..ledger.copy import restore as restore_ledger
from ..ledger.git import Repository


def restore(root: Path, tag: str | None) -> int:
    """Restore a campaign in a clone that has fetched ``refs/autoresearch/*``.

    Args:
        root: The project.
        tag: Campaign to restore; None: the name of the current git branch.

    Returns:
        Exit code 0.
    """
    repository = Repository.open(root)
    ledger = restore_ledger(repository, tag or default_tag(repository))
    name, keeps = ledger.path.parent.name, max(0, len(ledger.champions()) - 1)
    print(
        f"campaign {name}: {len(ledger.attempts())} attempts and {keeps} keeps restored; continue "
        f"with: pytest --autoresearch --autoresearch-tag={name}"
    )
    ledger.close()
    return 0
