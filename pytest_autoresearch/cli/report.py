"""The command ``report``: logs, page and exports of a campaign from its ledger."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from pathlib import Path

from ..core.experiment import Metric
from ..core.files import write_atomic
from ..ledger.git import Repository
from ..report import exports, html, junit
from .ledgers import open_ledger


def report(
    root: Path,
    tag: str | None,
    log: Path | None,
    table: Path | None,
    page: Path | None,
    files: Sequence[Path],
) -> int:
    """Write what is asked for; print the table if nothing is.

    Args:
        root: Folder of the project.
        tag: Of the campaign; None for the name of the current git branch.
        log: Of the junit report.
        table: Of results.tsv.
        page: Of the report page.
        files: Exports; their endings choose the form.

    Returns:
        Exit code 0.
    """
    with closing(open_ledger(Repository.open(root), root, tag)) as ledger:
        attempts, champions = ledger.attempts(), ledger.champions()
        metric = Metric(**(ledger.meta("campaign") or {}).get("metric", {}))
        if log:
            facts, sessions = junit.facts_of(ledger, attempts, champions), ledger.sessions()
            first = min((s.id for s in sessions if s.driver == sessions[-1].driver), default=0)
            junit.write(log, attempts, metric, facts, champions=champions, first_session=first)
        if table:
            write_atomic(table, exports.tsv(attempts))
        for path in files:
            exports.write(path, attempts)
        if page:
            html.write(page, attempts, champions, html.gather(ledger), live=False)
        if not (log or table or page or files):
            print(exports.tsv(attempts), end="")
    return 0
