"""The copy of a campaign's ledger in git: ``refs/autoresearch/<tag>/ledger``.

Only the latest copy is reachable. It is pushed with the other refs of the campaign and restores
numbering, champion, noise, logs, curves and money in another clone.
"""

from __future__ import annotations

import os
import sqlite3
import zlib
from pathlib import Path

from ..core.files import temporary_folder
from .database import FILE
from .git import Repository, RepositoryError
from .repair import Commits
from .store import Ledger

LIMIT_BYTES = 20 << 20
"""Size of a compressed copy above which logs of attempts that were not kept are left out."""

_WITHOUT_LOGS = """
UPDATE runs SET result = json_remove(result, '$.log_head', '$.log_tail', '$.curve')
    WHERE attempt_id IN (SELECT id FROM attempts WHERE verdict IS NOT 'keep')
"""


class RestoreError(Exception):
    """The campaign cannot be restored here; one line with the remedy."""


def save(repository: Repository, ledger: Ledger) -> None:
    """Write the present ledger to the campaign's ledger ref.

    Raises:
        RepositoryError: git cannot store it.
        LedgerUnavailable: The ledger cannot be read.
        OSError: There is no room for the temporary copy.
    """
    with temporary_folder("copy") as folder:
        path = folder / FILE
        ledger.copy_to(path)
        data = zlib.compress(path.read_bytes())
        if len(data) > LIMIT_BYTES:
            with sqlite3.connect(path) as db:
                db.execute(_WITHOUT_LOGS)
            db.execute("VACUUM")
            db.close()
            data = zlib.compress(path.read_bytes())
    repository.store_ledger(ledger.path.parent.name, data)


def restore(repository: Repository, tag: str) -> Ledger:
    """Make the ledger of a campaign from its copy in git, and set the campaign's refs.

    Args:
        repository: A clone with the refs ``refs/autoresearch/<tag>/*``.
        tag: Campaign to restore.

    Raises:
        RestoreError: The ledger exists, there is no copy, or the copy is damaged.
        RepositoryError: A commit is missing, or the campaign's branch holds foreign commits.
        LedgerUnavailable: The ledger cannot be written.
    """
    root = repository.root
    if Ledger.exists(root, tag):
        raise RestoreError(
            f"campaign {tag!r} has a ledger already; move {root / '.autoresearch' / tag} away first"
        )
    data = repository.load_ledger(tag)
    if data is None:
        raise RestoreError(
            f"refs/autoresearch/{tag}/ledger is missing; run: git fetch origin "
            f"'+refs/autoresearch/{tag}/*:refs/autoresearch/{tag}/*', or give another --tag"
        )
    folder = root / ".autoresearch" / tag
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".{FILE}.{os.getpid()}.tmp"
    try:
        temporary.write_bytes(zlib.decompress(data))
        _check(temporary)
        _check_commits(repository, Ledger(temporary), tag)
        for suffix in ("-wal", "-shm"):  # of a ledger that was lost
            (folder / f"{FILE}{suffix}").unlink(missing_ok=True)
        os.replace(temporary, folder / FILE)
    except (zlib.error, sqlite3.Error) as error:
        raise RestoreError(f"the copy of campaign {tag!r} in git is damaged: {error}") from None
    finally:
        for name in folder.glob(f"{temporary.name}*"):
            name.unlink()
    ledger = Ledger.open(root, tag)
    ledger.close_all_sessions()
    if champions := [champion.commit for champion in ledger.champions()]:
        repository.project(tag, champions, ledger.commits())
    return ledger


def _check(path: Path) -> None:
    db = sqlite3.connect(path)
    try:
        [(answer,)] = db.execute("PRAGMA quick_check").fetchall()
    finally:
        db.close()
    if answer != "ok":
        raise sqlite3.DatabaseError(answer)


def _check_commits(repository: Repository, ledger: Ledger, tag: str) -> None:
    """Check that git has the commits of the champions; make those again that it lacks.

    Raises:
        RepositoryError: One is missing; names the command that fetches it.
    """
    ledger.prepare()
    champions = {champion.attempt_id: champion.commit for champion in ledger.champions()}
    names = (ledger.meta("campaign") or {}).get("files", ())
    commits = Commits(repository, ledger, names)
    unmade = commits.remake(commits.lost())
    ledger.close()
    if missing := [one.commit for one in unmade if one.id in champions]:
        raise RepositoryError(
            f"commit {missing[0][:10]} of campaign {tag!r} is not in this clone; run: git fetch "
            f"--unshallow, or git fetch origin '+refs/autoresearch/{tag}/*:"
            f"refs/autoresearch/{tag}/*'"
        )
    repository.check_branch(tag, list(champions.values()))
