"""All attempts and runs as JSON lines, CSV and results.tsv, for notebooks and spreadsheets."""

from __future__ import annotations

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, fields, is_dataclass
from functools import partial
from pathlib import Path
from statistics import fmean
from typing import Any

from ..core.errors import UsageError
from ..core.figures import figures
from ..core.files import write_atomic
from ..core.records import Attempt
from ..core.run import Purpose, Run

_MAPPINGS = ("metrics", "causes", "sandbox", "hashes", "evidence")

_LONG = ("log_head", "log_tail", "curve")

_FORMULA = ("=", "+", "-", "@", "\t", "\r")

_STATUS = {"keep": "keep", "baseline": "keep", "discard": "discard", "guard": "discard"}


def jsonl(attempts: Iterable[Attempt]) -> str:
    """Return one JSON object a line, an attempt each with its runs, edits and logs.

    NaN and infinities, which JSON cannot hold, become null.
    """
    return "".join(_line(attempt) + "\n" for attempt in attempts)


def _line(attempt: Attempt) -> str:
    write = partial(json.dumps, allow_nan=False, separators=(",", ":"))
    try:
        return write(attempt, default=_parts)
    except ValueError:  # NaN or infinity
        return write(_plain(asdict(attempt)))


def _parts(value: Any) -> Any:
    """Convert a value for json; `asdict` would copy every point of every curve."""
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


def attempts_csv(attempts: Sequence[Attempt]) -> str:
    """Return one row an attempt: its figures, without code and logs."""
    names = {attempt.id: attempt.name for attempt in attempts}
    plain = ("kind", "number", "state", "started", "finished", "fingerprint")
    return _table(
        [
            {"attempt": attempt.name, **{name: getattr(attempt, name) for name in plain}}
            | figures(attempt, names)
            for attempt in attempts
        ]
    )


def runs_csv(attempts: Iterable[Attempt]) -> str:
    """Return one row a run, with its attempt's name; a column for each figure it reported."""
    return _table(
        [
            {"attempt": attempt.name, "verdict": attempt.verdict, **_run(run)}
            for attempt in attempts
            for run in attempt.runs
        ]
    )


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
    """Return a cell's text; a quote precedes what a spreadsheet would run as a formula."""
    if value is None or (isinstance(value, float) and not math.isfinite(value)):
        return ""
    if isinstance(value, bool | int | float):
        return repr(value)
    text = str(value).replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    return f"'{text}" if text.startswith(_FORMULA) else text


def tsv(attempts: Iterable[Attempt]) -> str:
    """Return results.tsv as karpathy/autoresearch writes it: five columns, one row an attempt.

    An attempt without a score has 0.000000 and status crash. The baselines are one row with the
    mean of their seeds, since readers of that format take the first row as the baseline and every
    later kept one as an improvement.
    """
    rows = ["commit\tval_bpb\tmemory_gb\tstatus\tdescription"]
    finished = [attempt for attempt in attempts if attempt.verdict is not None]
    seeds = [
        one for one in finished
        if one.kind == "baseline" and any(run.purpose is Purpose.CALIBRATE for run in one.own_runs)
    ]  # fmt: skip
    if scores := [one.score for one in seeds if one.score is not None]:
        memory = max(map(_memory, seeds))
        rows.append(f"{seeds[0].commit[:7]}\t{fmean(scores):.6f}\t{memory:.1f}\tkeep\tbaseline")
        finished = [one for one in finished if one.kind != "baseline" or one.score is None]
    for attempt in finished:
        assert attempt.verdict is not None
        status = _STATUS.get(attempt.verdict, "crash" if attempt.score is None else "discard")
        title = _cell(" ".join((attempt.title or attempt.name).split()))
        score, memory = attempt.score or 0, _memory(attempt)
        rows.append(f"{attempt.commit[:7]}\t{score:.6f}\t{memory:.1f}\t{status}\t{title}")
    return "\n".join(rows) + "\n"


def _memory(attempt: Attempt) -> float:
    """Return the peak memory of an attempt's runs in GiB."""
    return max((run.peak_memory_bytes for run in attempt.runs), default=0) / 2**30


def write(path: Path, attempts: Sequence[Attempt]) -> None:
    """Write the export that the file's name asks for, in one step.

    Args:
        path: Ends in ``.jsonl``, ``.tsv``, ``runs.csv``, or ``.csv`` for the attempts.
        attempts: Of the campaign.

    Raises:
        UsageError: It ends in something else.
        OSError: It cannot be written.
    """
    forms = {".jsonl": jsonl, ".tsv": tsv, "runs.csv": runs_csv, ".csv": attempts_csv}
    for ending, form in forms.items():
        if path.name.endswith(ending):
            write_atomic(path, form(attempts))
            return
    raise UsageError(f"{path}: name it NAME.jsonl, NAME.tsv, NAME.csv (attempts) or NAME-runs.csv")
