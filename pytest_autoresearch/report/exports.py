"""All attempts and all trials as JSON lines and as CSV, for notebooks and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..core.files import write_atomic
from ..core.records import Attempt
from ..core.run import Run

_NESTED = ("edits", "usage", "meta", "check_notes", "runs")

_MAPPINGS = ("metrics", "causes", "sandbox", "hashes", "evidence")

_LONG = ("log_head", "log_tail", "curve")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")


def jsonl(attempts: Iterable[Attempt]) -> str:
    """Return one JSON object a line, an attempt each, its trials, edits and logs within.

    Numbers that JSON does not know (NaN, infinities) become null.
    """
    return "".join(_line(attempt) + "\n" for attempt in attempts)


def _line(attempt: Attempt) -> str:
    write = partial(json.dumps, allow_nan=False, separators=(",", ":"))
    try:
        return write(attempt, default=_parts)
    except ValueError:  # it holds a number that JSON does not know
        return write(_plain(asdict(attempt)))


def _parts(value: Any) -> Any:
    """What JSON does not know; not `asdict`, which would copy every point of every curve."""
    if is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in fields(value)}
    return dict(value) if isinstance(value, Mapping) else str(value)


def _plain(value: Any) -> Any:
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return str(value) if isinstance(value, Path) else value


def attempts_csv(attempts: Iterable[Attempt]) -> str:
    """Return one row an attempt: its figures, what it cost and what refused it; no code, no logs."""
    rows = []
    for attempt in attempts:
        plain = {f.name: getattr(attempt, f.name) for f in fields(attempt) if f.name not in _NESTED}
        usage = {f"usage_{name}": value for name, value in asdict(attempt.usage).items()}
        refused = "; ".join(
            f"{check.name}: {check.detail}" for check in attempt.check_notes if not check.ok
        )
        seconds = sum(run.total_seconds for run in attempt.runs)
        extra = {"refused_by": refused, "runs": len(attempt.runs), "trial_seconds": seconds}
        rows.append({**plain, **usage, **extra})
    return _table(rows)


def runs_csv(attempts: Iterable[Attempt]) -> str:
    """Return one row a training run, with its attempt's name; a column for each figure reported."""
    rows = []
    for attempt in attempts:
        for run in attempt.runs:
            rows.append({"attempt": attempt.name, "verdict": attempt.verdict, **_run(run)})
    return _table(rows)


def _run(run: Run) -> dict[str, Any]:
    row = {f.name: getattr(run, f.name) for f in fields(run) if f.name not in (*_MAPPINGS, *_LONG)}
    for name in _MAPPINGS:
        prefix = name.rstrip("s")
        for key, value in getattr(run, name).items():
            if isinstance(value, int | float | str | None):
                row[f"{prefix}_{key}"] = value
    return row


def _table(rows: Sequence[Mapping[str, Any]]) -> str:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.writer(text)  # ends lines as RFC 4180 does, and so quotes what holds a return
    writer.writerow([_cell(name) for name in columns])
    writer.writerows([_cell(row.get(name)) for name in columns] for row in rows)
    return text.getvalue()


def _cell(value: Any) -> str:
    """Text of a cell; what a spreadsheet would run as a formula gets a quote before it."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool | int | float):
        return repr(value)
    text = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def write(path: Path, attempts: Sequence[Attempt]) -> None:
    """Write the export that the file's name asks for, in one step.

    Args:
        path: Ends in ``.jsonl``; in ``trials.csv``; or in ``.csv`` for the attempts.
        attempts: Of the campaign.

    Raises:
        ValueError: It ends in something else.
        OSError: It cannot be written.
    """
    if path.name.endswith(".jsonl"):
        write_atomic(path, jsonl(attempts))
    elif path.name.endswith("trials.csv"):
        write_atomic(path, runs_csv(attempts))
    elif path.name.endswith(".csv"):
        write_atomic(path, attempts_csv(attempts))
    else:
        raise ValueError(f"{path}: name it NAME.jsonl, NAME.csv (attempts) or NAME-trials.csv")
