"""TODO cli.restore."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

from ..campaign.project import default_tag
from ..ledger import trailers
from ..ledger.git import RepositoryError
from ..ledger.restore import NOT_TRIED, RESTORED, restore
from ..ledger.snapshot import Snapshot, SnapshotError
from ..ledger.store import LedgerUnavailable
from ..ledger.trailers import History
from ..report import junit


def import_log(root: Path, tag: str | None, log: Path) -> int:
    """Fill an empty ledger from a junit log.

    Args:
        root: The project.
        tag: Campaign to fill; None: the name it had.
        log: A file that ``--junitxml`` wrote in a session of this plugin.

    Returns:
        Exit code: 0 if the campaign stands, 4 if nothing was done.
    """
    return _command(root, lambda repository: (tag, junit.read(log)))


def rebuild(root: Path, tag: str | None) -> int:
    """Fill an empty ledger from the trailers of a campaign's commits.

    Returns:
        Exit code: 0 if the campaign stands, 4 if nothing was done.
    """

    def read(repository: History) -> tuple[str | None, Snapshot]:
        name = tag or default_tag(repository)
        return name, trailers.read(repository, name)

    return _command(root, read)


def _command(root: Path, read: Callable[[History], tuple[str | None, Snapshot]]) -> int:
    try:
        repository = History.open(root)
        assert isinstance(repository, History)
        tag, known = read(repository)
        made, ledger = restore(repository, tag or known.tag, known)
    except (SnapshotError, RepositoryError, LedgerUnavailable) as error:
        print(error, file=sys.stderr)
        return NOT_TRIED
    champions, attempts = ledger.champions(), ledger.attempts()
    print(
        f"campaign {ledger.path.parent.name}: {len(attempts)} attempts and {max(0, len(champions) - 1)} "
        f"keeps restored, {made} of the commits made again; go on with: pytest --autoresearch "
        f"--autoresearch-tag={ledger.path.parent.name}"
    )
    ledger.close()
    return RESTORED
