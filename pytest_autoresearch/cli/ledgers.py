"""Ledgers of existing campaigns, for commands."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from ..campaign.project import default_tag
from ..core.errors import UsageError
from ..ledger.git import Repository
from ..ledger.store import Ledger


def open_ledger(repository: Repository, root: Path, tag: str | None) -> Ledger:
    """Open the ledger of a campaign.

    Args:
        repository: Of the project.
        root: Folder of the project.
        tag: Of the campaign; None for the name of the current git branch.

    Raises:
        UsageError: There is no such campaign.
    """
    tag = tag or default_tag(repository)
    if not Ledger.exists(root, tag):
        raise UsageError(f"no campaign {tag!r} in {root}; give --tag")
    return Ledger.open(root, tag)


@contextmanager
def locked_ledger(
    repository: Repository, root: Path, tag: str | None, command: str
) -> Iterator[Ledger]:
    """Open the ledger of a campaign and keep other sessions away.

    Raises:
        UsageError: There is no such campaign.
        CampaignBusy: Another session works on it.
    """
    with closing(open_ledger(repository, root, tag)) as ledger:
        session = ledger.begin_session(driver=command, worker=command)
        try:
            yield ledger
        finally:
            if ledger.path.exists():
                ledger.end_session(session, None)
