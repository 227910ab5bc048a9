"""What each worker runs now, in one small file per process, for the live view."""

from __future__ import annotations

import contextlib
import json
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.files import write_atomic
from ..core.processes import process_start

if TYPE_CHECKING:
    from ..core.run import Progress, Purpose

REPAINT_S = 0.5

_last_written: dict[tuple[str, str], float] = {}


# ---------------------------------------------------------------------- word from the workers


def write_status(
    folder: Path,
    worker: str,
    attempt: str,
    purpose: Purpose | None,
    progress: Progress,
    *,
    title: str = "",
    champion: float | None = None,
) -> None:
    """Write what this worker runs, for the driver's live view; at most a few times a second.

    Args:
        folder: Of the campaign.
        worker: Name of this process.
        attempt: Name of the attempt.
        purpose: What the run is for; None outside a run.
        progress: How far it is.
        title: Of the proposal.
        champion: Mean score of the champion.
    """
    now, key = time.monotonic(), (worker, f"{attempt} {purpose} {progress.phase}")
    if now - _last_written.get(key, 0.0) < REPAINT_S / 2:
        return
    _last_written.clear()
    _last_written[key] = now
    status = {
        "worker": worker,
        "pid": os.getpid(),
        "attempt": attempt,
        "title": title,
        "champion": champion,
        "purpose": purpose or "",
        "phase": progress.phase,
        "fraction": progress.fraction,
        "elapsed": progress.elapsed_s,
        "loss": progress.loss,
        "at": time.time(),
    }
    with contextlib.suppress(OSError):
        path = _file(folder, worker)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, json.dumps(status))


def clear_status(folder: Path, worker: str) -> None:
    """Say that nothing runs in this worker."""
    with contextlib.suppress(OSError):
        _file(folder, worker).unlink(missing_ok=True)


def read_status(folder: Path) -> list[dict[str, Any]]:
    """Return what the workers that are alive last said, their clocks moved on to now."""
    found = []
    for path in sorted((folder / "status").glob("*.json")):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            status = json.loads(path.read_text())
            os.kill(status["pid"], 0)
            status["elapsed"] += max(0.0, time.time() - status["at"])
            found.append(status)
    return found


def drop_dead_status(folder: Path) -> None:
    """Remove what workers that were killed last said."""
    for path in (folder / "status").glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
            if not process_start(json.loads(path.read_text())["pid"]):
                path.unlink()


def _file(folder: Path, worker: str) -> Path:
    return folder / "status" / f"{worker}.json"
