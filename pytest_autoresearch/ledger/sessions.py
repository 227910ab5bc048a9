"""Sessions in the ledger: which process works on the campaign, and what a dead one leaves."""

from __future__ import annotations

import json
import os
import platform
import sqlite3
import time
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path

from ..core.processes import boot_id, process_start
from ..core.proposal import Usage
from ..core.records import ABLATION, SessionRecord
from .database import Database, LedgerUnavailable, row_id
from .locks import SessionLocks
from .proposals import charge


class CampaignBusy(Exception):
    """Another live session works on this campaign."""


class SessionStore(Database):
    """The part of a ledger that holds sessions."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self._locks = SessionLocks(path.parent)

    def begin_session(
        self, *, driver: str, worker: str = "main", config: Mapping[str, object] | None = None
    ) -> int:
        """Register this process, close dead sessions, and return the session's id.

        Args:
            driver: Token shared by the processes of one pytest run.
            worker: xdist worker name, or ``main``.
            config: Options of the session.

        Raises:
            CampaignBusy: A live process of another driver works on this campaign.
        """
        with self._write() as db:
            for row in self._close_dead_sessions(db):
                if row["driver"] != driver:
                    raise CampaignBusy(
                        f"campaign {self.path.parent.name!r} is being worked on by process "
                        f"{row['pid']} on {row['host']}; wait for it, or give another "
                        f"--autoresearch-tag{self._locks.hint(*_process(row))}"
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
            try:
                self._locks.take(row_id(cursor))
            except OSError as error:
                raise LedgerUnavailable(f"{error.filename}: {error.strerror}") from None
            return row_id(cursor)

    def recover(self) -> None:
        """Close the sessions of dead processes, e.g. of a replaced worker."""
        with self._write() as db:
            self._close_dead_sessions(db)

    def _close_dead_sessions(self, db: sqlite3.Connection) -> list[sqlite3.Row]:
        """Close the sessions of dead processes; return the live ones."""
        live = []
        for row in db.execute("SELECT * FROM sessions WHERE ended IS NULL").fetchall():
            if self._locks.held(*_process(row)):
                live.append(row)
            else:
                self._close_session(db, row["id"])
        return live

    def _close_session(self, db: sqlite3.Connection, session_id: int) -> None:
        now = time.time()
        self._locks.release(session_id)
        db.execute("UPDATE sessions SET ended = ? WHERE id = ?", (now, session_id))
        self._abandon_all(db, session_id, "interrupted", "the process died")
        if not db.execute("SELECT 1 FROM sessions WHERE ended IS NULL").fetchone():
            # Runs of finished attempts, e.g. confirmations, that were cut off.
            db.execute(
                "UPDATE runs SET state = 'interrupted', finished = ? WHERE state = 'running'",
                (now,),
            )
            self._attribute_unbilled_cost(db)

    @staticmethod
    def _attribute_unbilled_cost(db: sqlite3.Connection) -> None:
        """Attribute the cost of interrupted LLM calls to the last attempt.

        Costs per attempt then sum to the total that was spent.
        """
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'spend'").fetchone():
            return
        [(spent,)] = db.execute("SELECT sum(coalesce(settled, reserved)) FROM spend").fetchall()
        rows = db.execute("SELECT body FROM proposals").fetchall()
        known = sum(json.loads(row["body"])["usage"].get("cost_usd") or 0.0 for row in rows)
        [(last,)] = db.execute("SELECT max(id) FROM attempts WHERE kind = 'mutation'").fetchall()
        if last is not None and (spent or 0.0) - known > 1e-6:
            charge(db, last, Usage(cost_usd=spent - known))

    def end_session(self, session_id: int, exit_code: int | None) -> None:
        """Record the end of a session and its exit code."""
        with self._write() as db:
            self._close_session(db, session_id)
            db.execute("UPDATE sessions SET exit = ? WHERE id = ?", (exit_code, session_id))

    def close_all_sessions(self) -> None:
        """Close every open session, of a restored ledger whose processes ran elsewhere."""
        with self._write() as db:
            for row in db.execute("SELECT id FROM sessions WHERE ended IS NULL").fetchall():
                self._close_session(db, row["id"])

    def live_processes(self, driver: str) -> list[int]:
        """Return the ids of the other live processes of a pytest run, which is this one's."""
        rows = self._rows("SELECT * FROM sessions WHERE driver = ? AND ended IS NULL", driver)
        held = [row["pid"] for row in rows if self._locks.held(*_process(row))]
        return [pid for pid in held if pid != os.getpid()]

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
            (attempt_id, ABLATION, attempt_id),  # ablations are never requeued
        )
        db.execute(
            "UPDATE runs SET state = ?, finished = ? WHERE attempt_id = ? AND state = 'running'",
            (state, now, attempt_id),
        )

    def _abandon_all(
        self, db: sqlite3.Connection, session_id: int, state: str, reason: str
    ) -> None:
        for row in db.execute(
            "SELECT id FROM attempts WHERE session_id = ? AND state = 'running'", (session_id,)
        ).fetchall():
            self._abandon(db, row["id"], state, reason)

    def free_unended(self, session_id: int) -> None:
        """End the running attempts of a session that runs none: their ends were not recorded."""
        with self._write() as db:
            self._abandon_all(db, session_id, "infra", "its end could not be recorded")


def _process(session: sqlite3.Row) -> tuple[int, str, str]:
    return session["id"], session["host"], session["boot_id"]
