"""results.tsv in the format of karpathy/autoresearch: five columns, one row an attempt."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.files import write_atomic
from ..core.records import Attempt

_STATUS = {"keep": "keep", "baseline": "keep", "discard": "discard", "guard": "discard"}


def render(attempts: Iterable[Attempt]) -> str:
    """Return the table; an attempt without a score has 0.000000 and status crash, as there."""
    rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription"]
    for attempt in attempts:
        if attempt.verdict is None:
            continue
        memory = max((run.peak_memory_bytes for run in attempt.runs), default=0) / 2**30
        status = _STATUS.get(attempt.verdict, "crash" if attempt.score is None else "discard")
        title = " ".join((attempt.title or attempt.name).split())
        rows.append(
            f"{attempt.commit[:7]}\t{attempt.score or 0:.6f}\t{memory:.1f}\t{status}\t{title}"
        )
    return "\n".join(rows) + "\n"


def write(path: Path, attempts: Iterable[Attempt]) -> None:
    """Write the table in one step.

    Raises:
        OSError: It cannot be written; the ledger still holds everything.
    """
    write_atomic(path, render(attempts))
