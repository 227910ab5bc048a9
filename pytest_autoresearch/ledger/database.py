"""The SQLite file of a campaign: schema, migration, connections and facts."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Self

SCHEMA_VERSION = 3

BUSY_TIMEOUT_S = 30.0

FILE = "ledger.sqlite"

_SCHEMA = """
CREATE TABLE meta (key TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE sessions (
    id INTEGER PRIMARY KEY, host TEXT, boot_id TEXT, pid INTEGER, pid_start TEXT, driver TEXT,
    worker TEXT, config TEXT, started REAL, ended REAL, exit INTEGER);
CREATE TABLE attempts (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL, kind TEXT NOT NULL, number INTEGER NOT NULL,
    session_id INTEGER NOT NULL REFERENCES sessions, worker TEXT, state TEXT NOT NULL,
    started REAL NOT NULL, finished REAL, verdict TEXT, reason TEXT DEFAULT '',
    proposal_id INTEGER, parent INTEGER, champion_before INTEGER, champion_after INTEGER,
    fingerprint TEXT DEFAULT '', bar REAL, score REAL, n INTEGER DEFAULT 0, gain REAL,
    gain_sigma REAL, lines_added INTEGER DEFAULT 0, lines_removed INTEGER DEFAULT 0,
    "commit" TEXT DEFAULT '', check_notes TEXT DEFAULT '[]', commit_object TEXT DEFAULT '');
CREATE INDEX attempts_fingerprint ON attempts (fingerprint);
CREATE INDEX attempts_state ON attempts (state);
CREATE TABLE proposals (
    id INTEGER PRIMARY KEY, state TEXT NOT NULL, attempt_id INTEGER, parent INTEGER,
    body TEXT NOT NULL, created REAL NOT NULL);
CREATE INDEX proposals_state ON proposals (state);
CREATE TABLE runs (
    id INTEGER PRIMARY KEY, attempt_id INTEGER NOT NULL REFERENCES attempts, seed INTEGER NOT NULL,
    purpose TEXT NOT NULL, state TEXT NOT NULL, device TEXT, concurrency INTEGER, budget TEXT,
    started REAL NOT NULL, finished REAL, score REAL, result TEXT NOT NULL DEFAULT '{}');
CREATE INDEX runs_attempt ON runs (attempt_id);
CREATE TABLE champions (
    version INTEGER PRIMARY KEY, attempt_id INTEGER NOT NULL, "commit" TEXT NOT NULL,
    scores TEXT NOT NULL, at REAL NOT NULL);
"""

_FROM_1 = """
ALTER TABLE slots RENAME TO attempts;
ALTER TABLE attempts RENAME COLUMN gates TO check_notes;
ALTER TABLE trials RENAME TO runs;
ALTER TABLE runs RENAME COLUMN slot_id TO attempt_id;
ALTER TABLE proposals RENAME COLUMN slot_id TO attempt_id;
ALTER TABLE champions RENAME COLUMN slot_id TO attempt_id;
DROP TABLE events;
DROP INDEX slots_fingerprint;
DROP INDEX trials_slot;
CREATE INDEX attempts_fingerprint ON attempts (fingerprint);
CREATE INDEX attempts_state ON attempts (state);
CREATE INDEX proposals_state ON proposals (state);
CREATE INDEX runs_attempt ON runs (attempt_id);
UPDATE attempts SET kind = 'ablation' WHERE kind = 'prune';
UPDATE meta SET key = 'confirmation' WHERE key = 'closing'
"""

_FROM_2 = "ALTER TABLE attempts ADD COLUMN commit_object TEXT DEFAULT ''"

_LAST_REPEATED = """
SELECT coalesce(max(a.id), 0) FROM attempts a JOIN attempts b USING (kind, number)
    WHERE a.id != b.id AND kind != 'baseline'
"""

_UNIQUE = """
CREATE UNIQUE INDEX attempts_number ON attempts (kind, number)
    WHERE kind != 'baseline' AND state IN ('running', 'done') AND id > {known}
"""
"""A baseline may be measured again, and an attempt that was cut off may be repeated. Ledgers of
older schemas can hold a number twice."""


class LedgerUnavailable(Exception):
    """The file cannot be read or written (full disk, permissions): infrastructure."""


class Database:
    """A campaign's SQLite file; safe to share between threads of a process."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.RLock()
        self._connection: sqlite3.Connection | None = None
        self._owner = 0
        self._identity: tuple[int, int] | None = None

    @classmethod
    def open(cls, root: Path, tag: str) -> Self:
        """Open or create the ledger of campaign `tag` under ``root/.autoresearch``.

        Raises:
            LedgerUnavailable: It cannot be written, or a newer version wrote it.
        """
        folder = root / ".autoresearch" / tag
        try:
            folder.mkdir(parents=True, exist_ok=True)
            ignore = root / ".autoresearch" / ".gitignore"
            if not ignore.exists():
                ignore.write_text("*\n")
            ledger = cls(folder / FILE)
            ledger.path.touch()
        except OSError as error:
            raise LedgerUnavailable(f"{folder}: {error.strerror}; make it writable") from None
        ledger.prepare()
        return ledger

    @staticmethod
    def exists(root: Path, tag: str) -> bool:
        """Return whether campaign `tag` has a ledger that was not lost: deleted or emptied."""
        path = root / ".autoresearch" / tag / FILE
        if not path.is_file():
            return False
        try:
            with closing(sqlite3.connect(path)) as db:
                return bool(db.execute("PRAGMA user_version").fetchone()[0])
        except sqlite3.Error:
            return True  # opening it says how it is damaged

    def prepare(self) -> None:
        """Create the tables, or bring an older schema up to date, in one transaction."""
        with self._write() as db:
            version = db.execute("PRAGMA user_version").fetchone()[0]
            if version > SCHEMA_VERSION:
                raise LedgerUnavailable(
                    f"{self.path} has schema {version}, this version reads {SCHEMA_VERSION}; "
                    "update pytest-autoresearch or start a new --autoresearch-tag"
                )
            if version < SCHEMA_VERSION:
                steps = [_SCHEMA] if version == 0 else [_FROM_1, _FROM_2][version - 1 :]
                for statement in ";".join(steps).split(";"):
                    db.execute(statement)
                if version == 1:
                    _rename_confirmed_keeps(db)
                [(known,)] = db.execute(_LAST_REPEATED).fetchall()
                db.execute(_UNIQUE.format(known=known))
                db.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")

    def lost(self) -> bool:
        """Return whether the file was deleted or replaced since it was opened."""
        try:
            status = self.path.stat()
        except OSError:
            return True
        self._identity = self._identity or (status.st_dev, status.st_ino)
        return self._identity != (status.st_dev, status.st_ino)

    def _db(self) -> sqlite3.Connection:
        if self.lost():
            raise LedgerUnavailable(
                f"{self.path} was deleted; run: python -m pytest_autoresearch restore "
                f"--tag {self.path.parent.name}"
            )
        if self._connection is None or self._owner != os.getpid():
            connection = sqlite3.connect(
                self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA synchronous = FULL")
            self._connection, self._owner = connection, os.getpid()
        return self._connection

    @contextmanager
    def _guarded(self) -> Iterator[sqlite3.Connection]:
        try:
            with self._lock:
                yield self._db()
        except sqlite3.Error as error:
            raise LedgerUnavailable(f"{self.path}: {error}; nothing was recorded") from error

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        """Run a block as one transaction that holds the write lock from its start."""
        with self._guarded() as db:
            db.execute("BEGIN IMMEDIATE")
            try:
                yield db
                db.execute("COMMIT")
            except BaseException:
                if db.in_transaction:
                    db.execute("ROLLBACK")
                self._forget()
                raise

    def _forget(self) -> None:
        """Drop what was read within a transaction that did not complete."""

    def _rows(self, sql: str, *values: object) -> list[sqlite3.Row]:
        with self._guarded() as db:
            return db.execute(sql, values).fetchall()

    def copy_to(self, path: Path) -> None:
        """Write a consistent copy of the file."""
        with self._guarded() as db:
            db.execute("VACUUM INTO ?", (str(path),))

    def close(self) -> None:
        """Close the file; it is opened again on the next use."""
        with self._lock:
            if self._connection is not None and self._owner == os.getpid():
                self._connection.close()
            self._connection = None

    def meta(self, key: str) -> Any:
        """Return a fact of the campaign, or None."""
        rows = self._rows("SELECT value FROM meta WHERE key = ?", key)
        return json.loads(rows[0]["value"]) if rows else None

    def set_meta(self, key: str, value: object) -> None:
        """Set a fact of the campaign."""
        with self._write() as db:
            db.execute("REPLACE INTO meta VALUES (?, ?)", (key, json.dumps(value)))


def _rename_confirmed_keeps(db: sqlite3.Connection) -> None:
    """Rename the key ``slot`` of confirmed keeps, for schema 1."""
    row = db.execute("SELECT value FROM meta WHERE key = 'confirmation'").fetchone()
    confirmation = json.loads(row["value"]) if row else None
    for keep in (confirmation or {}).get("keeps", ()):
        keep["attempt"] = keep.pop("slot")
    db.execute("UPDATE meta SET value = ? WHERE key = 'confirmation'", (json.dumps(confirmation),))


def row_id(cursor: sqlite3.Cursor) -> int:
    """Return the id of the row that a statement inserted."""
    assert cursor.lastrowid is not None
    return cursor.lastrowid
