"""Decoded records of a ledger, so that every row is parsed once.

Rows of finished attempts and runs never change. A refresh reads only new rows and those that were
not finished, and nothing at all if the file has not changed since.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable
from dataclasses import replace

from ..core.proposal import Usage
from ..core.records import Attempt
from ..core.run import Run
from .codec import attempt_of, proposal_of, run_of, total

_ATTEMPTS = """
SELECT s.*, p.body AS body, p.attempt_id AS owner FROM attempts s
    LEFT JOIN proposals p ON p.id = s.proposal_id
    WHERE s.id {which} ORDER BY s.id
"""

_RUNS = "SELECT * FROM runs WHERE id {which} ORDER BY id"

_PROPOSALS = """
SELECT p.id, p.attempt_id, p.body, p.state = 'spent' AS final,
    s.proposal_id IS NOT p.id AND (p.state != 'ahead' OR x.ended IS NOT NULL) AS extra
    FROM proposals p JOIN attempts s ON s.id = p.attempt_id JOIN sessions x ON x.id = s.session_id
    WHERE p.id {which} ORDER BY p.id
"""
"""Proposals; ``extra`` are those that an attempt pays for besides its own: made during it and not
used by another attempt."""


class RecordCache:
    """All attempts and runs of one ledger, as of the last refresh."""

    def __init__(self) -> None:
        self._stamp: tuple[int, int] | None = None
        self._own: dict[int, Attempt] = {}
        self._attempts: dict[int, Attempt] = {}
        self._runs: dict[int, Run] = {}
        self._runs_of: dict[int, list[int]] = {}
        self._undecided: set[int] = set()
        self._unfinished: set[int] = set()
        self._extra: dict[int, dict[int, Usage]] = {}
        self._open: dict[int, int] = {}
        self._last_attempt = self._last_run = self._last_proposal = 0

    def attempts(self, db: sqlite3.Connection) -> list[Attempt]:
        """Return every attempt, oldest first."""
        self._refresh(db)
        return list(self._attempts.values())

    def attempt(self, db: sqlite3.Connection, attempt_id: int) -> Attempt | None:
        """Return one attempt, or None."""
        self._refresh(db)
        return self._attempts.get(attempt_id)

    def runs(self, db: sqlite3.Connection) -> list[Run]:
        """Return every run, oldest first."""
        self._refresh(db)
        return list(self._runs.values())

    def _refresh(self, db: sqlite3.Connection) -> None:
        stamp = (db.execute("PRAGMA data_version").fetchone()[0], db.total_changes)
        if stamp == self._stamp:
            return
        changed = self._read_runs(db) | self._read_extra(db)
        known, self._undecided = self._undecided, set()
        for row in _rows(db, _ATTEMPTS, known, self._last_attempt):
            self._own[row["id"]] = attempt_of(row)
            if row["state"] != "done":
                self._undecided.add(row["id"])
            self._last_attempt = max(self._last_attempt, row["id"])
            changed.add(row["id"])
        for attempt_id in sorted(i for i in changed if i in self._own):
            own, extra = self._own[attempt_id], self._extra.get(attempt_id, {})
            self._attempts[attempt_id] = replace(
                own,
                runs=tuple(self._runs[i] for i in self._runs_of.get(attempt_id, ())),
                usage=total([*extra.values(), own.usage]),
            )
        self._stamp = stamp

    def _read_runs(self, db: sqlite3.Connection) -> set[int]:
        """Read new and unfinished runs; return the attempts that they belong to."""
        changed = set()
        for row in _rows(db, _RUNS, self._unfinished, self._last_run):
            run = run_of(row)
            if run.id not in self._runs:
                self._runs_of.setdefault(run.attempt_id, []).append(run.id)
            self._runs[run.id] = run
            self._last_run = max(self._last_run, run.id)
            (self._unfinished.add if run.state == "running" else self._unfinished.discard)(run.id)
            changed.add(run.attempt_id)
        return changed

    def _read_extra(self, db: sqlite3.Connection) -> set[int]:
        """Read new and unused proposals; return the attempts whose further costs may differ."""
        known, self._open = self._open, {}
        changed = set(known.values())
        for proposal, attempt_id in known.items():
            self._extra.get(attempt_id, {}).pop(proposal, None)
        for row in _rows(db, _PROPOSALS, known, self._last_proposal):
            proposal, attempt_id = row["id"], row["attempt_id"]
            self._last_proposal = max(self._last_proposal, proposal)
            if row["extra"]:
                self._extra.setdefault(attempt_id, {})[proposal] = proposal_of(row["body"]).usage
            if not row["final"]:
                self._open[proposal] = attempt_id
            changed.add(attempt_id)
        return changed


def _rows(
    db: sqlite3.Connection, sql: str, unfinished: Iterable[int], last: int
) -> list[sqlite3.Row]:
    """Return the unfinished rows and those after `last`; one query with OR would scan the table."""
    known = tuple(unfinished)
    marks = ",".join("?" * len(known))
    before = db.execute(sql.format(which=f"IN ({marks})"), known).fetchall() if known else []
    return [*before, *db.execute(sql.format(which="> ?"), (last,))]
