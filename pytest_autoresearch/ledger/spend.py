"""Money: reserved before a call, settled after it, in one table for all workers of a campaign.

Prices are genai-prices', offline; they move, so its version is written beside every amount. It is
an estimate: the hard stop is the spend limit of the provider's console.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from ..core.money import SetAside, prices_version
from ..core.proposal import ProposerExhausted

IN_FLIGHT_S = 1800.0
"""Seconds in which a call ends; what was set aside longer ago and not settled, is spent."""

_SCHEMA = """
CREATE TABLE IF NOT EXISTS spend (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, model TEXT NOT NULL, prices TEXT NOT NULL,
    reserved REAL NOT NULL, settled REAL);
"""


@dataclass(frozen=True)
class CostBudget:
    """The money of one campaign.

    Attributes:
        path: The campaign's ledger file, whose table ``spend`` all workers share.
        cap: US dollars that may be spent in the campaign, or None.
    """

    path: Path
    cap: float | None = None

    @contextmanager
    def _db(self) -> Iterator[sqlite3.Connection]:
        db = sqlite3.connect(self.path, timeout=30.0, isolation_level=None)
        try:
            db.execute(_SCHEMA)
            db.execute("BEGIN IMMEDIATE")
            yield db
            db.execute("COMMIT")
        finally:
            db.close()

    def reserve(self, model: str, amount: float) -> int:
        """Set aside what a call may cost at most.

        Returns:
            A number for `settle`.

        Raises:
            SetAside: It would exceed the cap, but for what calls in flight may cost at most.
            ProposerExhausted: It would exceed the cap.
        """
        with self._db() as db:
            if self.cap is not None and (spent := self._spent(db)) + amount > self.cap:
                free = spent - self._in_flight(db) + amount <= self.cap
                raise (SetAside if free else ProposerExhausted)(
                    f"${spent:.2f} of ${self.cap:.2f} are spent or set aside, and the "
                    f"next call may cost ${amount:.2f} (--autoresearch-max-cost)"
                )
            cursor = db.execute(
                "INSERT INTO spend (at, model, prices, reserved) VALUES (?, ?, ?, ?)",
                (time.time(), model, prices_version(), amount),
            )
            assert cursor.lastrowid is not None
            return cursor.lastrowid

    def settle(self, reservation: int, amount: float) -> None:
        """Replace a reservation by what was really spent; one that is never settled stays spent."""
        with self._db() as db:
            db.execute("UPDATE spend SET settled = ? WHERE id = ?", (amount, reservation))

    def spent(self) -> float:
        """US dollars spent or set aside so far."""
        with self._db() as db:
            return self._spent(db)

    @staticmethod
    def _in_flight(db: sqlite3.Connection) -> float:
        [(total,)] = db.execute(
            "SELECT sum(reserved) FROM spend WHERE settled IS NULL AND at > ?",
            (time.time() - IN_FLIGHT_S,),
        ).fetchall()
        return float(total or 0.0)

    @staticmethod
    def _spent(db: sqlite3.Connection) -> float:
        [(total,)] = db.execute("SELECT sum(coalesce(settled, reserved)) FROM spend").fetchall()
        return float(total or 0.0)
