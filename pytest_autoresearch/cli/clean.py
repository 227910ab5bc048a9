"""The command ``clean``: remove what a campaign left."""

from __future__ import annotations

from pathlib import Path

from ..campaign.cleanup import RUNS, sweep_campaign
from ..campaign.researcher import PAPERS
from ..core.files import remove_tree
from ..ledger.database import FILE
from ..ledger.git import Repository
from ..ledger.locks import LOCKS
from ..ledger.store import Ledger
from ..options import PAGE
from ..proposers.memory import IDEAS, LESSONS
from ..report import exports
from .ledgers import locked_ledger

OURS = (RUNS, "status", "STOP", f"{FILE}*", f".{FILE}*", PAPERS, f".{PAPERS}.lock", IDEAS, LESSONS,
        ".notes.lock", LOCKS, "pull-request.md", "report.html")  # fmt: skip
"""Everything that the plugin writes into the folder of a campaign."""


def clean(root: Path, tag: str | None, everything: bool) -> int:
    """Remove files that nothing needs, or the whole campaign.

    Args:
        root: Folder of the project.
        tag: Of the campaign; None for the name of the current git branch.
        everything: Also remove ledger, checkpoints, refs, branch, table and page.

    Returns:
        Exit code 0.
    """
    repository = Repository.open(root)
    with locked_ledger(repository, root, tag, "clean") as ledger:
        _clean(repository, ledger, ledger.path.parent.name, everything)
    return 0


def _clean(repository: Repository, ledger: Ledger, tag: str, everything: bool) -> None:
    root, folder = repository.root, ledger.path.parent
    sweep_campaign(root, ledger)
    if not everything:
        print(
            f"campaign {tag}: run files that nothing needs are removed; --all also removes the "
            "ledger, checkpoints, refs and the branch"
        )
        return
    repository.check_branch(tag, [champion.commit for champion in ledger.champions()])
    table = folder / "results.tsv"
    if table.is_file() and table.read_bytes() == exports.tsv(ledger.attempts()).encode():
        table.unlink()
    repository.drop_campaign(tag)
    ledger.close()
    for pattern in OURS:
        for path in folder.glob(pattern):
            remove_tree(path)
    left = sorted(path.name for path in folder.iterdir())
    if not left:
        folder.rmdir()
    for link in (root / "results.tsv", root / PAGE):
        if link.is_symlink() and not link.exists():
            link.unlink()
    print(f"campaign {tag} is removed")
    if left:
        print(f"left in {folder}, not written by campaigns: {', '.join(left)}")
