"""Everything that ever happened in a campaign: one SQLite file, the truth.

Git refs, junit, tsv and HTML are projections of it and can be rebuilt. Several processes write
at once (WAL, ``BEGIN IMMEDIATE``); the champion row is the only compare-and-swap. A lease belongs
to a session and is taken over only when that session's process is dead.
"""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, Unpack

from ..core.processes import boot_id, is_alive, process_start
from ..core.proposal import Proposal, Usage
from ..core.records import ABLATION, Attempt, Champion, CheckNote, Outcome, SessionRecord
from ..core.run import Run
from .cache import RecordCache
from .codec import body_of, champion_of, proposal_of, scores_of
from .database import Database
from .database import LedgerUnavailable as LedgerUnavailable

ROW_FIELDS = frozenset(
    ("id", "attempt_id", "seed", "purpose", "state", "device", "concurrency", "budget", "started",
     "finished")
)  # fmt: skip
"""Fields of a `Run` that are columns of its row; the others are stored as JSON."""

RETRIES = 3
"""Attempts of one session in which a proposal may meet a failure of the infrastructure: one that
brings it about itself must not take every attempt of every night."""

_WAITING = """
SELECT * FROM proposals p WHERE (state = 'drafted' OR state = 'ahead' AND EXISTS
    (SELECT 1 FROM attempts s JOIN sessions x ON x.id = s.session_id
    WHERE s.id = p.attempt_id AND x.ended IS NOT NULL)) AND (SELECT count(*) FROM attempts
    WHERE proposal_id = p.id AND state = 'infra' AND session_id =
    (SELECT session_id FROM attempts WHERE id = ?)) < ? ORDER BY id LIMIT 1
"""


class CampaignBusy(Exception):
    """Another live session works on this campaign."""


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


class Ledger(Database):
    """One campaign's ledger; safe to share between threads of a process."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._cache = RecordCache()

    def _forget(self) -> None:
        self._cache = RecordCache()

    # ------------------------------------------------------------------ sessions

    def begin_session(
        self, *, driver: str, worker: str = "main", config: Mapping[str, object] | None = None
    ) -> int:
        """Register this process and recover what dead sessions left; return the session's id.

        Args:
            driver: Token shared by the processes of one pytest run.
            worker: xdist worker name, or ``main``.
            config: What was asked for.

        Raises:
            CampaignBusy: A live process of another driver works on this campaign.
        """
        with self._write() as db:
            for row in db.execute("SELECT * FROM sessions WHERE ended IS NULL").fetchall():
                if not is_alive(row["host"], row["boot_id"], row["pid"], row["pid_start"]):
                    self._close_dead_session(db, row["id"])
                elif row["driver"] != driver:
                    raise CampaignBusy(
                        f"campaign {self.path.parent.name!r} is being worked on by process "
                        f"{row['pid']} on {row['host']}; wait for it, or give another "
                        "--autoresearch-tag"
                    )
            cursor = db.execute(
                "INSERT INTO sessions (host, boot_id, pid, pid_start, driver, worker, config,"
                " started) VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    platform.node(),
                    boot_id(),
                    os.getpid(),
                    process_start(os.getpid()),
                    driver,
                    worker,
                    json.dumps(dict(config or {})),
                    time.time(),
                ),
            )
            return _id(cursor)

    def recover(self) -> None:
        """Take over what dead sessions left, e.g. a replaced worker's attempt."""
        with self._write() as db:
            for row in db.execute("SELECT * FROM sessions WHERE ended IS NULL").fetchall():
                if not is_alive(row["host"], row["boot_id"], row["pid"], row["pid_start"]):
                    self._close_dead_session(db, row["id"])

    def _close_dead_session(self, db: sqlite3.Connection, session_id: int) -> None:
        now = time.time()
        db.execute("UPDATE sessions SET ended = ? WHERE id = ?", (now, session_id))
        for row in db.execute(
            "SELECT id FROM attempts WHERE session_id = ? AND state = 'running'", (session_id,)
        ).fetchall():
            self._abandon(db, row["id"], "interrupted", "the process died")
        if not db.execute("SELECT 1 FROM sessions WHERE ended IS NULL").fetchone():
            self._balance(db)

    @staticmethod
    def _balance(db: sqlite3.Connection) -> None:
        """Charge the last attempt with what was spent and is in no proposal: calls that were cut off.

        So what the attempts cost adds up to what was spent.
        """
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'spend'").fetchone():
            return
        [(spent,)] = db.execute("SELECT sum(coalesce(settled, reserved)) FROM spend").fetchall()
        rows = db.execute("SELECT body FROM proposals").fetchall()
        known = sum(json.loads(row["body"])["usage"].get("cost_usd") or 0.0 for row in rows)
        [(last,)] = db.execute("SELECT max(id) FROM attempts WHERE kind = 'mutation'").fetchall()
        if last is not None and (spent or 0.0) - known > 1e-6:
            _charge(db, last, Usage(cost_usd=spent - known))

    def end_session(self, session_id: int, exit_code: int | None) -> None:
        """Note that a session ended in order."""
        with self._write() as db:
            self._close_dead_session(db, session_id)
            db.execute("UPDATE sessions SET exit = ? WHERE id = ?", (exit_code, session_id))

    def close_all_sessions(self) -> None:
        """Close every open session of a restored ledger: its processes ran elsewhere."""
        with self._write() as db:
            for row in db.execute("SELECT id FROM sessions WHERE ended IS NULL").fetchall():
                self._close_dead_session(db, row["id"])

    def sessions(self) -> list[SessionRecord]:
        """Return every session, oldest first."""
        names = {field.name for field in fields(SessionRecord)}
        rows = self._rows("SELECT * FROM sessions ORDER BY id")
        return [
            SessionRecord(
                **{k: row[k] for k in row.keys() if k in names and k != "config"},  # noqa: SIM118
                config=json.loads(row["config"]),
            )
            for row in rows
        ]

    # ------------------------------------------------------------------ attempts

    def next_number(self, kind: str) -> int:
        """Return the number after the highest ever begun of `kind`."""
        rows = self._rows("SELECT max(number) AS top FROM attempts WHERE kind = ?", kind)
        return int(rows[0]["top"] or 0) + 1

    def start_attempt(
        self, *, session_id: int, worker: str, name: str, kind: str, number: int
    ) -> Attempt:
        """Open an attempt's row.

        Raises:
            SlotTaken: A baseline of that number is running or has its score.
        """
        with self._write() as db:
            if kind == "baseline":
                row = db.execute(
                    "SELECT id FROM attempts WHERE kind = ? AND number = ?"
                    " AND (state = 'running' OR score IS NOT NULL)",
                    (kind, number),
                ).fetchone()
                if row is not None:
                    raise AttemptTaken(self.attempt(row["id"]))
            cursor = db.execute(
                "INSERT INTO attempts (name, kind, number, session_id, worker, state, started)"
                " VALUES (?, ?, ?, ?, ?, 'running', ?)",
                (name, kind, number, session_id, worker, time.time()),
            )
            return self.attempt(_id(cursor))

    def commits(self) -> dict[str, str]:
        """Return attempt name to commit of every mutation that has one."""
        rows = self._rows("SELECT name, \"commit\" FROM attempts WHERE kind != 'baseline'")
        return {row["name"]: row["commit"] for row in rows if row["commit"]}

    def save_proposal(self, attempt_id: int, proposal: Proposal, parent: int | None) -> int:
        """Write down an attempt's proposal before anything is done with it."""
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO proposals (state, attempt_id, parent, body, created)"
                " VALUES ('leased', ?, ?, ?, ?)",
                (attempt_id, parent, body_of(proposal), time.time()),
            )
            db.execute(
                "UPDATE attempts SET proposal_id = ?, parent = ? WHERE id = ?",
                (_id(cursor), parent, attempt_id),
            )
            return _id(cursor)

    def add_draft(self, proposal: Proposal, parent: int, ahead_of: int | None = None) -> int:
        """Keep a proposal that was made ahead.

        Args:
            proposal: What was proposed.
            parent: Attempt whose files it was made for.
            ahead_of: Attempt during which it was made: it belongs to that attempt's session, and waits
                for any attempt when that has ended, or died. None: it waits for any attempt now.

        Returns:
            Its row.
        """
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO proposals (state, attempt_id, parent, body, created)"
                " VALUES (?, ?, ?, ?, ?)",
                ("drafted" if ahead_of is None else "ahead", ahead_of, parent, body_of(proposal),
                 time.time()),
            )  # fmt: skip
            return _id(cursor)

    def drop_draft(self, row: int, taken: bool) -> None:
        """Forget a proposal that was made ahead: an attempt has it now, or else nobody wants it.

        What was paid for one that nobody wants stays with the attempt during which it was made.
        """
        drop = "DELETE FROM proposals" if taken else "UPDATE proposals SET state = 'spent'"
        with self._write() as db:
            db.execute(f"{drop} WHERE id = ? AND state = 'ahead'", (row,))

    def charge(self, attempt_id: int, usage: Usage) -> None:
        """Add what was paid for nothing to an attempt."""
        with self._write() as db:
            _charge(db, attempt_id, usage)

    def lease_proposal(self, attempt_id: int) -> tuple[Proposal, int | None] | None:
        """Give the oldest proposal that waits for an attempt to this one.

        Returns:
            The proposal and the attempt whose files it was made for; None if none waits. One with
            which the infrastructure failed `RETRIES` times waits for the next session.
        """
        with self._write() as db:
            row = db.execute(_WAITING, (attempt_id, RETRIES)).fetchone()
            if row is None:
                return None
            db.execute(
                "UPDATE proposals SET state = 'leased', attempt_id = ? WHERE id = ?",
                (attempt_id, row["id"]),
            )
            db.execute(
                "UPDATE attempts SET proposal_id = ?, parent = ? WHERE id = ?",
                (row["id"], row["parent"], attempt_id),
            )
            return proposal_of(row["body"]), row["parent"]

    def proposal_waits(self, attempt_id: int) -> bool:
        """Whether `lease_proposal` would find one for an attempt of the same session."""
        return bool(self._rows(_WAITING, attempt_id, RETRIES))

    def add_check_notes(self, attempt_id: int, notes: Sequence[CheckNote]) -> None:
        """Add what gates and guards said."""
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
        """Give an attempt its one verdict.

        Raises:
            ValueError: It has one already.
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

    def abandon_attempt(self, attempt_id: int, state: str, reason: str) -> None:
        """End an attempt without a verdict (``interrupted`` or ``infra``) and free its proposal."""
        with self._write() as db:
            self._abandon(db, attempt_id, state, reason)

    def _abandon(self, db: sqlite3.Connection, attempt_id: int, state: str, reason: str) -> None:
        now = time.time()
        db.execute(
            "UPDATE attempts SET state = ?, reason = ?, finished = ?"
            " WHERE id = ? AND state = 'running'",
            (state, reason, now, attempt_id),
        )
        db.execute(
            "UPDATE proposals SET state = CASE WHEN EXISTS (SELECT 1 FROM attempts WHERE id = ? AND"
            " kind = ?) THEN 'spent' ELSE 'drafted' END WHERE attempt_id = ? AND state = 'leased'",
            (
                attempt_id,
                ABLATION,
                attempt_id,
            ),  # what to leave out is asked anew, and is no mutation
        )
        db.execute(
            "UPDATE runs SET state = ?, finished = ? WHERE attempt_id = ? AND state = 'running'",
            (state, now, attempt_id),
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
        purpose: str,
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
            return _id(cursor)

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
        """Return every champion there was, the baseline first."""
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


def _id(cursor: sqlite3.Cursor) -> int:
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _charge(db: sqlite3.Connection, attempt_id: int, usage: Usage) -> None:
    db.execute(
        "INSERT INTO proposals (state, attempt_id, body, created) VALUES ('spent', ?, ?, ?)",
        (attempt_id, body_of(Proposal("came to nothing", (), usage=usage)), time.time()),
    )
