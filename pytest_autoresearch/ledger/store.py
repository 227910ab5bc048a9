"""The ledger: everything that happened in a campaign, in one SQLite file.

Git refs, junit, tsv and HTML are projections of it and can be rebuilt. Several processes write
at once (WAL, ``BEGIN IMMEDIATE``); the champion row is the only compare-and-swap. A lease belongs
to a session and is taken over only when that session's process is dead.
"""

from __future__ import annotations

import json
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, Unpack

from ..core.records import (
    Attempt,
    Champion,
    CheckNote,
    Confirmation,
    Outcome,
    Transfer,
)
from ..core.run import Purpose, Run
from .cache import RecordCache
from .codec import champion_of, scores_of
from .database import LedgerUnavailable as LedgerUnavailable
from .database import row_id
from .proposals import ProposalStore
from .sessions import CampaignBusy as CampaignBusy
from .sessions import SessionStore

ROW_FIELDS = frozenset(
    ("id", "attempt_id", "seed", "purpose", "state", "device", "concurrency", "budget", "started",
     "finished")
)  # fmt: skip
"""Fields of a `Run` that are columns of its row; the others are stored as JSON."""


class AttemptTaken(Exception):
    """The attempt is being filled, or is filled.

    Attributes:
        record: The row that has it.
    """

    def __init__(self, record: Attempt) -> None:
        super().__init__(f"{record.name} is {record.state}")
        self.record = record


class ChampionMoved(Exception):
    """Another mutation was kept since the champion was read."""


class Ledger(SessionStore, ProposalStore):
    """One campaign's ledger; safe to share between threads of a process."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._cache = RecordCache()

    def _forget(self) -> None:
        self._cache = RecordCache()

    # ------------------------------------------------------------------ attempts

    def next_number(self, kind: str) -> int:
        """Return the number after the highest ever begun of `kind`."""
        rows = self._rows("SELECT max(number) AS top FROM attempts WHERE kind = ?", kind)
        return int(rows[0]["top"] or 0) + 1

    def unused_numbers(self, kind: str) -> list[int]:
        """Return the numbers before `next_number` that no attempt has, e.g. of a dead worker."""
        rows = self._rows("SELECT DISTINCT number FROM attempts WHERE kind = ?", kind)
        used = {row["number"] for row in rows}
        return [number for number in range(1, max(used, default=0)) if number not in used]

    def measured(self, kind: str) -> set[int]:
        """Return the numbers of the attempts of `kind` that have a score."""
        sql = "SELECT number FROM attempts WHERE kind = ? AND score IS NOT NULL"
        return {row["number"] for row in self._rows(sql, kind)}

    def start_attempt(
        self, *, session_id: int, worker: str, name: str, kind: str, number: int
    ) -> Attempt:
        """Insert the row of an attempt that starts.

        Raises:
            AttemptTaken: Another of that kind and number is running or done; a baseline that is
                done without a score may be measured again.
        """
        with self._write() as db:
            row = db.execute(
                "SELECT id FROM attempts WHERE kind = ? AND number = ? AND"
                " (state = 'running' OR state = 'done' AND (kind != 'baseline' OR score NOTNULL))",
                (kind, number),
            ).fetchone()
            if row is not None:
                raise AttemptTaken(self.attempt(row["id"]))
            cursor = db.execute(
                "INSERT INTO attempts (name, kind, number, session_id, worker, state, started)"
                " VALUES (?, ?, ?, ?, ?, 'running', ?)",
                (name, kind, number, session_id, worker, time.time()),
            )
            return self.attempt(row_id(cursor))

    def commits(self) -> dict[str, str]:
        """Return attempt name to commit, or '', of every mutation that ended."""
        rows = self._rows(
            'SELECT name, "commit" FROM attempts WHERE kind != ? AND state != ?'
            ' ORDER BY "commit" != ?, id',
            "baseline", "running", "",
        )  # fmt: skip
        return {row["name"]: row["commit"] for row in rows}

    def commit_object(self, attempt_id: int) -> str:
        """Return what makes an attempt's commit again: parent, signatures and message, or ''."""
        [row] = self._rows("SELECT commit_object FROM attempts WHERE id = ?", attempt_id)
        return str(row["commit_object"])

    def add_check_notes(self, attempt_id: int, notes: Sequence[CheckNote]) -> None:
        """Append notes of checks and constraints."""
        with self._write() as db:
            (before,) = db.execute(
                "SELECT check_notes FROM attempts WHERE id = ?", (attempt_id,)
            ).fetchone()
            check_notes = [*json.loads(before), *(asdict(note) for note in notes)]
            db.execute(
                "UPDATE attempts SET check_notes = ? WHERE id = ?",
                (json.dumps(check_notes), attempt_id),
            )

    def claim_fingerprint(self, attempt_id: int, fingerprint: str) -> Attempt | None:
        """Claim `fingerprint` for this attempt, or return the attempt that has or is trying it."""
        with self._write() as db:
            row = db.execute(
                "SELECT id FROM attempts WHERE fingerprint = ? AND id != ?"
                " AND (state = 'running' OR verdict NOT IN ('duplicate', 'invalid'))"
                " AND state NOT IN ('interrupted', 'infra') ORDER BY id LIMIT 1",
                (fingerprint, attempt_id),
            ).fetchone()
            if row is None:
                db.execute(
                    "UPDATE attempts SET fingerprint = ? WHERE id = ?", (fingerprint, attempt_id)
                )
                return None
        return self.attempt(row["id"])

    def finish_attempt(self, attempt_id: int, **outcome: Unpack[Outcome]) -> None:
        """Record the verdict of a running attempt.

        Raises:
            ValueError: The attempt is not running.
        """
        with self._write() as db:
            self._finish(db, attempt_id, outcome)

    def _finish(self, db: sqlite3.Connection, attempt_id: int, outcome: Outcome) -> None:
        row = db.execute(
            "SELECT state, verdict FROM attempts WHERE id = ?", (attempt_id,)
        ).fetchone()
        if row is None or row["state"] != "running":
            raise ValueError(f"attempt {attempt_id} is not running")
        columns = {"state": "done", "finished": time.time(), **outcome}
        assignments = ", ".join(f'"{name}" = ?' for name in columns)
        db.execute(
            f"UPDATE attempts SET {assignments} WHERE id = ?", (*columns.values(), attempt_id)
        )
        db.execute(
            "UPDATE proposals SET state = 'spent' WHERE attempt_id = ? AND state = 'leased'",
            (attempt_id,),
        )

    def attempt(self, attempt_id: int) -> Attempt:
        """Return one attempt.

        Raises:
            KeyError: There is none of that id.
        """
        with self._guarded() as db:
            found = self._cache.attempt(db, attempt_id)
        if found is None:
            raise KeyError(attempt_id)
        return found

    def attempts(self) -> list[Attempt]:
        """Return every attempt of the campaign, oldest first."""
        with self._guarded() as db:
            return self._cache.attempts(db)

    # ------------------------------------------------------------------ runs

    def start_run(
        self,
        attempt_id: int,
        *,
        seed: int,
        purpose: Purpose,
        device: str,
        concurrency: int,
        budget: str,
    ) -> int:
        """Open a run's row before its process exists."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO runs (attempt_id, seed, purpose, state, device, concurrency, budget,"
                " started) VALUES (?, ?, ?, 'running', ?, ?, ?, ?)",
                (attempt_id, seed, purpose, device, concurrency, budget, time.time()),
            )
            return row_id(cursor)

    def finish_run(self, run_id: int, result: Any) -> None:
        """Write a `run.Run` down."""
        body = {k: v for k, v in asdict(result).items() if k not in ROW_FIELDS}
        body["checkpoint"] = str(body["checkpoint"]) if body.get("checkpoint") else None
        body["losses"] = str(body["losses"]) if body.get("losses") else None
        score = body.pop("score")
        state = result.status if result.status in ("interrupted", "infra") else "done"
        with self._write() as db:
            db.execute(
                "UPDATE runs SET state = ?, finished = ?, score = ?, result = ? WHERE id = ?",
                (state, time.time(), score, json.dumps(body, default=str), run_id),
            )

    def runs(self) -> list[Run]:
        """Return every run of the campaign, oldest first."""
        with self._guarded() as db:
            return self._cache.runs(db)

    # ------------------------------------------------------------------ the champion

    def champion(self) -> Champion | None:
        """Return the champion now, or None before calibration."""
        rows = self._rows("SELECT * FROM champions ORDER BY version DESC LIMIT 1")
        return champion_of(rows[0]) if rows else None

    def champions(self) -> list[Champion]:
        """Return every champion, the baseline first."""
        return [champion_of(row) for row in self._rows("SELECT * FROM champions ORDER BY version")]

    def promote(
        self,
        expected: int,
        attempt_id: int,
        commit: str,
        scores: Mapping[int, float],
        outcome: Outcome | None = None,
    ) -> Champion:
        """Make an attempt the champion: its outcome and the champion row in one transaction.

        Args:
            expected: Version of the champion that the verdict was against; 0 for the baseline.
            attempt_id: The kept attempt.
            commit: Its commit.
            scores: Seed to score.
            outcome: Columns of the attempt's row; None when it is finished already.

        Raises:
            ChampionMoved: The champion is no longer version `expected`; nothing was written.
        """
        with self._write() as db:
            top = db.execute("SELECT max(version) AS top FROM champions").fetchone()["top"] or 0
            if top != expected:
                raise ChampionMoved(f"champion {top}, expected {expected}")
            if outcome is not None:
                self._finish(db, attempt_id, {**outcome, "champion_after": attempt_id})
            db.execute(
                "INSERT INTO champions VALUES (?, ?, ?, ?, ?)",
                (top + 1, attempt_id, commit, json.dumps(dict(scores)), time.time()),
            )
        champion = self.champion()
        assert champion is not None
        return champion

    def replace_champion_scores(self, version: int, scores: Mapping[int, float]) -> None:
        """Let new measurements of a champion take the place of all older ones."""
        with self._write() as db:
            db.execute(
                "UPDATE champions SET scores = ? WHERE version = ?",
                (json.dumps(dict(scores)), version),
            )

    def add_champion_scores(self, version: int, scores: Mapping[int, float]) -> None:
        """Add re-measurements to a champion."""
        with self._write() as db:
            row = db.execute(
                "SELECT scores FROM champions WHERE version = ?", (version,)
            ).fetchone()
            merged = {**scores_of(row["scores"]), **scores}
            db.execute(
                "UPDATE champions SET scores = ? WHERE version = ?", (json.dumps(merged), version)
            )

    def confirmation(self) -> Confirmation | None:
        """Return the last confirmation, which may be of a former champion, or None."""
        stored = self.meta("confirmation")
        return Confirmation.from_json(stored) if stored else None

    def save_confirmation(self, confirmation: Confirmation) -> None:
        """Store a confirmation in place of the last one."""
        self.set_meta("confirmation", asdict(confirmation))

    def transfers(self) -> list[Transfer]:
        """Return the gains under other conditions, one for each condition that was tried."""
        return [Transfer(**stored) for stored in self.meta("transfers") or ()]

    def save_transfer(self, transfer: Transfer) -> None:
        """Store a gain under other conditions; replaces an earlier one under the same."""
        others = [asdict(one) for one in self.transfers() if one.where != transfer.where]
        self.set_meta("transfers", [*others, asdict(transfer)])
