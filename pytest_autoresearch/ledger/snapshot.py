"""A campaign's ledger as plain data: what a junit log carries, what an empty ledger is filled from.

Rows travel as they stand in the tables, so nothing has to be said twice and nothing gets lost on
the way. Logs and curves are shortened, since a log file that is rewritten after each attempt must stay
small; the journal of events stays behind.
"""

from __future__ import annotations

import json
import platform
import sqlite3
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from ..core.processes import boot_id
from ..core.records import ABLATION
from .spend import CostBudget
from .store import BUSY_TIMEOUT_S, SCHEMA_VERSION, Ledger

Row = dict[str, Any]

LOG_CHARACTERS = 4_000
"""Characters kept of the end of each run's log."""

CURVE_POINTS = 64
"""Points kept of the loss curve of what was not kept; a champion's stays whole, since later runs
are compared with it."""

_JSON = {
    "meta": ("value",),
    "sessions": ("config",),
    "attempts": ("check_notes",),
    "proposals": ("body",),
    "runs": ("result",),
    "champions": ("scores",),
}
"""Table to the columns whose text is JSON."""

_PARTS = ("tag", "taken", "meta", "sessions", "champions", "drafts", "spent")

_DIED = "the process died"


class SnapshotError(ValueError):
    """What was read is no ledger of this version's; one line with the remedy."""


@dataclass(frozen=True)
class AttemptRows:
    """An attempt with everything that belongs to it.

    Attributes:
        attempt: Its row.
        proposal: The row of its proposal, or None.
        runs: The rows of its training runs, oldest first.
    """

    attempt: Row
    proposal: Row | None
    runs: list[Row]


@dataclass(frozen=True)
class Snapshot:
    """Everything of a campaign that going on with it needs.

    Attributes:
        tag: Name of the campaign.
        taken: Unix seconds.
        meta: Facts of the campaign.
        sessions, champions: Rows.
        drafts: Proposals that wait for an attempt which has not begun.
        spent: US dollars.
        attempts: Oldest first.
    """

    tag: str
    taken: float
    meta: dict[str, Any] = field(default_factory=dict)
    sessions: list[Row] = field(default_factory=list)
    champions: list[Row] = field(default_factory=list)
    drafts: list[Row] = field(default_factory=list)
    spent: float = 0.0
    attempts: list[AttemptRows] = field(default_factory=list)


def take(ledger: Ledger) -> Snapshot:
    """Read a ledger in one transaction; writers are not held up.

    Raises:
        SnapshotError: The file cannot be read.
    """
    with _reading(ledger) as db:
        tables = {table: _rows(db, table) for table in _JSON}
        spent = _spent(db)
    whole = {row["attempt_id"] for row in tables["champions"]}
    proposals = {row["id"]: row for row in tables["proposals"]}
    runs: dict[int, list[Row]] = {}
    for run in tables["runs"]:
        runs.setdefault(run["attempt_id"], []).append(run)
    attempts = []
    for row in tables["attempts"]:
        keeps_curve = row["id"] in whole or row["kind"] == "baseline"
        own = [_shortened(run, keeps_curve) for run in runs.get(row["id"], ())]
        attempts.append(AttemptRows(row, proposals.get(row["proposal_id"]), own))
    filled = {row["proposal_id"] for row in tables["attempts"]}
    return Snapshot(
        tag=ledger.path.parent.name,
        taken=time.time(),
        meta={row["key"]: row["value"] for row in tables["meta"]},
        sessions=tables["sessions"],
        champions=tables["champions"],
        drafts=[
            {**row, "state": "drafted", "attempt_id": None} if row["state"] == "ahead" else row
            for row in tables["proposals"]
            if row["id"] not in filled
        ],
        spent=spent,
        attempts=attempts,
    )


def take_attempt(ledger: Ledger, attempt_id: int) -> AttemptRows:
    """Read what belongs to one attempt.

    Raises:
        SnapshotError: The file cannot be read.
        KeyError: There is no such attempt.
    """
    with _reading(ledger) as db:
        attempts = _rows(db, "attempts", "id", attempt_id)
        if not attempts:
            raise KeyError(attempt_id)
        runs = [_shortened(run, True) for run in _rows(db, "runs", "attempt_id", attempt_id)]
        proposals = _rows(db, "proposals", "id", attempts[0]["proposal_id"])
    return AttemptRows(attempts[0], proposals[0] if proposals else None, runs)


@contextmanager
def _reading(ledger: Ledger) -> Iterator[sqlite3.Connection]:
    try:
        with closing(sqlite3.connect(ledger.path, timeout=BUSY_TIMEOUT_S)) as db:
            db.row_factory = sqlite3.Row
            db.execute("BEGIN")
            yield db
    except sqlite3.Error as error:
        raise SnapshotError(f"{ledger.path}: {error}") from None


def _rows(db: sqlite3.Connection, table: str, column: str = "", value: object = None) -> list[Row]:
    where, values = (f"WHERE {column} = ?", (value,)) if column else ("", ())
    found = []
    for stored in db.execute(f"SELECT * FROM {table} {where} ORDER BY 1", values):
        row = dict(stored)
        for name in _JSON[table]:
            row[name] = json.loads(row[name] or "null")
        found.append(row)
    return found


def _spent(db: sqlite3.Connection) -> float:
    if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'spend'").fetchone():
        return 0.0
    [(total,)] = db.execute("SELECT sum(coalesce(settled, reserved)) FROM spend").fetchall()
    return float(total or 0.0)


def _shortened(run: Row, keeps_curve: bool) -> Row:
    result = dict(run["result"])
    for name in ("log_head", "checkpoint", "losses"):  # files stay where they are
        result.pop(name, None)
    if log := result.get("log_tail"):
        result["log_tail"] = log[-LOG_CHARACTERS:]
    if not keeps_curve and (curve := result.get("curve")):
        result["curve"] = thin(curve, CURVE_POINTS)
    return {**run, "result": result}


def thin(points: list[Any], most: int) -> list[Any]:
    """Return at most `most` of the points, evenly spread, the first and the last among them."""
    if len(points) <= most:
        return points
    return [points[round(i * (len(points) - 1) / (most - 1))] for i in range(most)]


# ---------------------------------------------------------------------- as text


def line(data: object) -> str:
    """Return data as one line of printable ASCII, which any log can carry unchanged."""
    text = json.dumps(data, separators=(",", ":"))
    return text.replace("\x7f", "\\u007f")


def campaign_data(snapshot: Snapshot) -> Row:
    """Return what belongs to the campaign as a whole; `read` takes it back."""
    return {"schema": SCHEMA_VERSION, **{part: getattr(snapshot, part) for part in _PARTS}}


def attempt_data(rows: AttemptRows) -> Row:
    """Return what belongs to one attempt; `read` takes it back."""
    return {"attempt": rows.attempt, "proposal": rows.proposal, "runs": rows.runs}


def read(campaign: Mapping[str, Any], attempts: Iterable[Mapping[str, Any]]) -> Snapshot:
    """Return the snapshot that `campaign_data` and `attempt_data` were made from.

    Raises:
        SnapshotError: A part is missing, or another version's ledger wrote it.
    """
    try:
        if campaign["schema"] != SCHEMA_VERSION:
            raise SnapshotError(
                f"it was written from a ledger of schema {campaign['schema']}, this version reads "
                f"{SCHEMA_VERSION}; use the version of pytest-autoresearch that wrote it"
            )
        return Snapshot(
            **{key: campaign[key] for key in _PARTS},
            attempts=[AttemptRows(s["attempt"], s["proposal"], s["runs"]) for s in attempts],
        )
    except (KeyError, TypeError) as error:
        raise SnapshotError(f"a record lacks {error}; the log is damaged") from None


# ---------------------------------------------------------------------- into an empty ledger


class EmptyLedger(Ledger):
    """A ledger that can be filled from a snapshot, once."""

    def fill(self, snapshot: Snapshot) -> None:
        """Write a campaign into this ledger, in one transaction.

        What ran when the snapshot was taken is interrupted now, and its proposal waits again.

        Raises:
            SnapshotError: The ledger holds attempts already, or a row does not fit.
        """
        try:
            ended = _ended(snapshot)
        except (KeyError, TypeError, AttributeError) as error:
            raise SnapshotError(f"a row lacks {error}; the log is damaged") from None
        rows = [row for entry in ended.attempts for row in [entry.proposal] if row is not None]
        tables = {
            "meta": [{"key": key, "value": value} for key, value in ended.meta.items()],
            "sessions": ended.sessions,
            "attempts": [entry.attempt for entry in ended.attempts],
            "proposals": [*rows, *ended.drafts],
            "runs": [run for entry in ended.attempts for run in entry.runs],
            "champions": ended.champions,
        }
        with self._write() as db:
            if db.execute("SELECT 1 FROM attempts LIMIT 1").fetchone():
                raise SnapshotError(
                    f"{self.path} holds attempts already; give another --tag, or move the folder away"
                )
            try:
                for table, found in tables.items():
                    for row in found:
                        _insert(db, table, row)
            except (sqlite3.Error, AttributeError, OverflowError) as error:
                raise SnapshotError(f"a row of {table} does not fit: {error}") from None
        if ended.spent:
            cost_budget = CostBudget(self.path)
            cost_budget.settle(cost_budget.reserve("restored", 0.0), ended.spent)
        self.event("restored", taken=ended.taken, attempts=len(ended.attempts))


def _ended(snapshot: Snapshot) -> Snapshot:
    """The same, with everything that was running given up as a dead process's work is."""
    at = snapshot.taken
    attempts = []
    for rows in snapshot.attempts:
        attempt, proposal, runs = rows.attempt, rows.proposal, rows.runs
        if attempt["state"] == "running":
            attempt = {**attempt, "state": "interrupted", "reason": _DIED, "finished": at}
            runs = [
                {**t, "state": "interrupted", "finished": at} if t["state"] == "running" else t
                for t in runs
            ]
            if proposal is not None and proposal["state"] == "leased":
                state = "spent" if attempt["kind"] == ABLATION else "drafted"
                proposal = {**proposal, "state": state}
        attempts.append(AttemptRows(attempt, proposal, runs))
    sessions = [{**row, "ended": row["ended"] or at} for row in snapshot.sessions]
    known = {row["id"] for row in sessions}
    for number in sorted({rows.attempt["session_id"] for rows in attempts} - known):
        sessions.append(_session(number, at))
    return replace(snapshot, sessions=sessions, attempts=attempts)


def _session(number: int, at: float) -> Row:
    """A stand-in for a session of which nothing is known but its attempts."""
    return {
        "id": number, "host": platform.node(), "boot_id": boot_id(), "pid": 0, "pid_start": "",
        "driver": "restored", "worker": "main", "config": {}, "started": at, "ended": at,
        "exit": None,
    }  # fmt: skip


def _insert(db: sqlite3.Connection, table: str, row: Row) -> None:
    values = {
        name: json.dumps(value) if name in _JSON[table] else value for name, value in row.items()
    }
    columns = ", ".join(f'"{name.replace(chr(34), "")}"' for name in values)
    marks = ", ".join("?" for _ in values)
    # a proposal that an interrupted attempt gave back belongs to two attempts
    db.execute(f"REPLACE INTO {table} ({columns}) VALUES ({marks})", tuple(values.values()))
