"""Conversion between rows of the ledger and records."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path

from ..core.proposal import Edit, Origin, Proposal, Usage
from ..core.records import Attempt, Champion, CheckNote
from ..core.run import Purpose, Run
from ..core.text import one_line


def scores_of(text: str) -> dict[int, float]:
    """Return seed to score."""
    return {int(seed): score for seed, score in json.loads(text).items()}


def champion_of(row: sqlite3.Row) -> Champion:
    """Return a champion from its row."""
    return Champion(
        row["version"], row["attempt_id"], row["commit"], scores_of(row["scores"]), row["at"]
    )


def body_of(proposal: Proposal) -> str:
    """Return a proposal as stored JSON; its title becomes one line of plain text."""
    return json.dumps(asdict(replace(proposal, title=one_line(proposal.title) or "untitled")))


def proposal_of(body: str) -> Proposal:
    """Return a proposal as `body_of` stored it."""
    data = json.loads(body)
    data["edits"] = tuple(Edit(**edit) for edit in data["edits"])
    data["usage"] = Usage(**data["usage"])
    if origin := data.get("origin"):
        data["origin"] = Origin(origin["kind"], tuple(origin["attempts"]))
    return Proposal(**data)


_ATTEMPT_COLUMNS = {field.name for field in fields(Attempt)}

_RUN_FIELDS = {field.name for field in fields(Run)}


def attempt_of(row: sqlite3.Row) -> Attempt:
    """Return an attempt without its runs from its row.

    Args:
        row: Of the attempt, with the ``body`` of its proposal and the proposal's ``owner``: the
            attempt that pays for it.
    """
    values = {k: row[k] for k in row.keys() if k in _ATTEMPT_COLUMNS}  # noqa: SIM118
    values["check_notes"] = tuple(CheckNote(**note) for note in json.loads(row["check_notes"]))
    if row["body"]:
        proposal = proposal_of(row["body"])
        if row["owner"] == row["id"]:
            values["usage"] = proposal.usage
        values |= {
            name: getattr(proposal, name)
            for name in ("title", "hypothesis", "proposer", "edits", "meta", "origin")
        }
    elif row["kind"] == "baseline":
        values["title"] = "baseline"
    return Attempt(**values)


def total(paid: Sequence[Usage]) -> Usage:
    """Return the sum of several usages."""
    return sum((usage for usage in paid if usage != Usage()), Usage())


def run_of(row: sqlite3.Row) -> Run:
    """Return a run from its row."""
    result = {k: v for k, v in json.loads(row["result"]).items() if k in _RUN_FIELDS}
    result |= {k: row[k] for k in row.keys() if k in _RUN_FIELDS}  # noqa: SIM118
    result["purpose"] = Purpose(result["purpose"])
    result["curve"] = tuple(tuple(point) for point in result.get("curve", ()))
    for name in ("checkpoint", "losses"):
        result[name] = Path(result[name]) if result.get(name) else None
    for name in ("sandbox", "hashes"):
        result[name] = _shared(result.get(name) or {})
    return Run(**result)


def _shared(facts: dict[str, str]) -> dict[str, str]:
    """Return one object for equal facts: they are the same for thousands of runs."""
    return _FACTS.setdefault(tuple(sorted(facts.items())), facts)


_FACTS: dict[tuple[tuple[str, str], ...], dict[str, str]] = {}
