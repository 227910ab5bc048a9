"""Tables of the HTML report: proposers, checks, device time, keeps on fresh seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.records import Attempt, Confirmation, Survival
from ..core.run import Purpose

PURPOSES = {
    Purpose.CALIBRATE: "baseline",
    Purpose.REPEAT: "champion with another random stream, to measure the noise",
    Purpose.FIRST: "first run of a mutation",
    Purpose.REPLICATE: "replicates of close calls",
    Purpose.CHAMPION: "champion again, to stay paired",
    Purpose.REPEAT: "champion on another stream, to measure the noise",
    Purpose.SMOKE: "smoke runs before training",
    Purpose.CHECK: "the experiment's checks",
    Purpose.AUDIT: "deeper audits of keeps",
    Purpose.DOWNSTREAM: "downstream task",
    Purpose.CONFIRM: "confirmation on fresh seeds",
    Purpose.HOLDOUT: "scoring on the holdout",
    Purpose.VERIFY: "verification of scores",
    Purpose.TRANSFER: "transfer to other budgets and sizes",
}
"""Purpose of a run in words, in the order in which a campaign comes to them."""

_AFTER = {"checks", "deeper audit of keeps", "downstream"}
"""Checks after the training, which they cannot spare."""


def by_proposer(tried: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return what each proposer tried, kept, gained and cost."""
    groups: dict[str, list[Attempt]] = {}
    for attempt in tried:
        if attempt.verdict is not None:
            groups.setdefault(attempt.proposer or "(none)", []).append(attempt)
    return [_proposer(name, attempts) for name, attempts in groups.items()]


def _proposer(name: str, attempts: Sequence[Attempt]) -> dict[str, Any]:
    keeps = [attempt for attempt in attempts if attempt.verdict == "keep"]
    hours = sum(run.total_seconds for attempt in attempts for run in attempt.runs) / 3600
    usages = [attempt.usage for attempt in attempts]
    costs = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    gain = sum(attempt.gain or 0.0 for attempt in keeps)
    return {
        "name": name,
        "tried": len(attempts),
        "kept": len(keeps),
        "failed": sum(attempt.score is None for attempt in attempts),
        "gain": gain if keeps else None,
        "per_attempt": gain / len(attempts) if keeps else None,
        "hours": hours,
        "per_hour": gain / hours if keeps and hours else None,
        "tokens": sum(usage.tokens_in + usage.output_tokens for usage in usages),
        "dollars": sum(costs) if costs else None,
        "per_dollar": gain / sum(costs) if keeps and sum(costs) else None,
    }


def earned(tried: Sequence[Attempt]) -> str:
    """Return in a line what each proposer kept, gained and cost, e.g. a model and its control.

    Returns:
        ``anthropic 12 of 30 kept, gain +0.369454, $2.11; gp 0 of 10 kept``; '' where one proposer
        made everything for nothing.
    """
    table = by_proposer(tried)
    if len(table) < 2 and not any(row["dollars"] for row in table):
        return ""
    return "; ".join(map(_earned, table))


def _earned(row: Mapping[str, Any]) -> str:
    text = f"{row['name']} {row['kept']} of {row['tried']} kept"
    if row["gain"] is not None:
        text += f", gain {row['gain']:+.6f}"
    return text + (f", ${row['dollars']:,.2f}" if row["dollars"] else "")


def by_check(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return what each check saw, caught, cost, and spared in training (seconds)."""
    tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
    usual = [run.total_seconds for a in tried for run in a.own_runs if run.status == "ok"]
    price = statistics.median(usual) if usual else 0.0
    table = []
    for name, notes in _notes(attempts, tried).items():
        caught = sum(not ok for ok, _ in notes)
        spares = name not in _AFTER and not name.startswith("guard ")
        table.append(
            {
                "name": name,
                "seen": len(notes),
                "caught": caught,
                "seconds": sum(seconds for _, seconds in notes),
                "spared": caught * price if spares else None,
            }
        )
    return table


def _notes(
    attempts: Sequence[Attempt], tried: Sequence[Attempt]
) -> dict[str, list[tuple[bool, float]]]:
    """Return per check (passed, seconds) of every mutation that it saw."""
    notes: dict[str, list[tuple[bool, float]]] = {}
    unapplied = sum(a.verdict == "invalid" and not a.check_notes for a in tried)
    if unapplied:
        applied = len(tried) - unapplied
        notes["edits apply"] = [(False, 0.0)] * unapplied + [(True, 0.0)] * applied
    for attempt in tried:
        for note in attempt.check_notes:
            notes.setdefault(note.name.replace("_", " "), []).append((note.ok, note.seconds))
    repeated = sum(attempt.verdict == "duplicate" for attempt in tried)
    unique = sum(bool(attempt.fingerprint) for attempt in tried)
    if repeated or unique:
        notes["not tried before"] = [(False, 0.0)] * repeated + [(True, 0.0)] * unique
    audits = [
        (run.status == "ok", run.total_seconds)
        for attempt in attempts
        for run in attempt.runs
        if run.purpose is Purpose.AUDIT and run.state == "done"
    ]
    if audits:
        notes["deeper audit of keeps"] = audits
    return notes


def by_purpose(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Return runs, device seconds and their share for each purpose."""
    groups: dict[Purpose, list[float]] = {}
    for attempt in attempts:
        for run in attempt.runs:
            groups.setdefault(run.purpose, []).append(run.total_seconds)
    total = sum(map(sum, groups.values()))
    return [
        {
            "name": PURPOSES[purpose],
            "runs": len(groups[purpose]),
            "seconds": sum(groups[purpose]),
            "share": sum(groups[purpose]) / total if total else 0.0,
        }
        for purpose in PURPOSES
        if purpose in groups
    ]


def survivals(
    attempts: Sequence[Attempt], confirmation: Confirmation | None
) -> list[Survival]:
    """Return the keeps that were examined one by one on fresh seeds, the confirmed ones last."""
    ids = {attempt.id for attempt in attempts}
    keeps = confirmation.keeps if confirmation else ()
    found = [keep for keep in keeps if keep.attempt in ids]
    return sorted(found, key=lambda keep: keep.standing == "confirmed")


def ablated(attempts: Sequence[Attempt]) -> list[tuple[Attempt, Attempt]]:
    """Return the keeps whose removal cost nothing, each with the ablation that removed it."""
    by_id = {attempt.id: attempt for attempt in attempts}
    return [
        (by_id[row], attempt)
        for attempt in attempts
        if attempt.verdict == "keep"
        for row in attempt.made_from("ablation")
        if row in by_id
    ]
