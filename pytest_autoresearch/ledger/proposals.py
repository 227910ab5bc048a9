"""Proposals in the ledger: drafts, the proposal of an attempt, and what was paid for them."""

from __future__ import annotations

import sqlite3
import time

from ..core.proposal import Proposal, Usage
from .codec import body_of, proposal_of
from .database import Database, row_id

RETRIES = 3
"""Infrastructure failures per session after which a proposal is set aside as a possible cause."""

_WAITING = """
SELECT * FROM proposals p WHERE (state = 'drafted' OR state = 'ahead' AND EXISTS
    (SELECT 1 FROM attempts s JOIN sessions x ON x.id = s.session_id
    WHERE s.id = p.attempt_id AND x.ended IS NOT NULL)) AND (SELECT count(*) FROM attempts
    WHERE proposal_id = p.id AND state = 'infra' AND session_id =
    (SELECT session_id FROM attempts WHERE id = ?)) < ? ORDER BY id LIMIT 1
"""


class ProposalStore(Database):
    """The part of a ledger that holds proposals."""

    def save_proposal(self, attempt_id: int, proposal: Proposal, parent: int | None) -> int:
        """Store the proposal of an attempt before it is used; return its row.

        One that the attempt had before is spent.
        """
        with self._write() as db:
            db.execute(
                "UPDATE proposals SET state = 'spent' WHERE attempt_id = ? AND state = 'leased'",
                (attempt_id,),
            )
            cursor = db.execute(
                "INSERT INTO proposals (state, attempt_id, parent, body, created)"
                " VALUES ('leased', ?, ?, ?, ?)",
                (attempt_id, parent, body_of(proposal), time.time()),
            )
            db.execute(
                "UPDATE attempts SET proposal_id = ?, parent = ? WHERE id = ?",
                (row_id(cursor), parent, attempt_id),
            )
            return row_id(cursor)

    def add_draft(self, proposal: Proposal, parent: int, ahead_of: int | None = None) -> int:
        """Store a draft: a proposal made before its attempt; return its row.

        Args:
            proposal: The draft.
            parent: Attempt whose files it was made for.
            ahead_of: Attempt during which it was made; the draft is free for any attempt once the
                session of that attempt has ended. None: it is free now.
        """
        with self._write() as db:
            cursor = db.execute(
                "INSERT INTO proposals (state, attempt_id, parent, body, created)"
                " VALUES (?, ?, ?, ?, ?)",
                ("drafted" if ahead_of is None else "ahead", ahead_of, parent, body_of(proposal),
                 time.time()),
            )  # fmt: skip
            return row_id(cursor)

    def drop_draft(self, row: int, taken: bool) -> None:
        """Drop a draft: delete it if an attempt has taken it, else mark it as spent.

        The cost of an unused draft stays with the attempt during which it was made.
        """
        drop = "DELETE FROM proposals" if taken else "UPDATE proposals SET state = 'spent'"
        with self._write() as db:
            db.execute(f"{drop} WHERE id = ? AND state = 'ahead'", (row,))

    def charge(self, attempt_id: int, usage: Usage) -> None:
        """Add a cost without a proposal to an attempt."""
        with self._write() as db:
            charge(db, attempt_id, usage)

    def lease_proposal(self, attempt_id: int) -> tuple[Proposal, int | None] | None:
        """Lease the oldest free proposal to an attempt.

        Returns:
            The proposal and the attempt whose files it was made for; None if there is none. After
            `RETRIES` infrastructure failures a proposal is free again in the next session only.
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
        """Return whether `lease_proposal` would find a proposal."""
        return bool(self._rows(_WAITING, attempt_id, RETRIES))


def charge(db: sqlite3.Connection, attempt_id: int, usage: Usage) -> None:
    """Attribute further costs to an attempt, as a proposal that came to nothing."""
    db.execute(
        "INSERT INTO proposals (state, attempt_id, body, created) VALUES ('spent', ?, ?, ?)",
        (attempt_id, body_of(Proposal("came to nothing", (), usage=usage)), time.time()),
    )
