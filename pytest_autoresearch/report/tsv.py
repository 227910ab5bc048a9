"""results.tsv in the format of karpathy/autoresearch: five columns, one row a slot."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from ..core.files import write_atomic
from ..core.records import SlotRecord

_STATUS = {"keep": "keep", "baseline": "keep", "discard": "discard", "guard": "discard"}


def render(slots: Iterable[SlotRecord]) -> str:
    """Return the table; a slot without a score has 0.000000 and status crash, as there."""
    rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription"]
    for slot in slots:
        if slot.verdict is None:
            continue
        memory = max((trial.peak_memory_bytes for trial in slot.trials), default=0) / 2**30
        status = _STATUS.get(slot.verdict, "crash" if slot.score is None else "discard")
        title = " ".join((slot.title or slot.name).split())
        rows.append(f"{slot.commit[:7]}\t{slot.score or 0:.6f}\t{memory:.1f}\t{status}\t{title}")
    return "\n".join(rows) + "\n"


def write(path: Path, slots: Iterable[SlotRecord]) -> None:
    """Write the table in one step.

    Raises:
        OSError: It cannot be written; the ledger still holds everything.
    """
    write_atomic(path, render(slots))
