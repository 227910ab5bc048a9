"""What the HTML report compares: proposers, checks, where the hours went, keeps on fresh seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.records import Attempt

PURPOSES = {
    "calibrate": "baseline, to know the noise",
    "first": "first training of a mutation",
    "replicate": "close calls trained again",
    "champion": "champion trained again, to stay paired",
    "smoke": "smoke runs before training",
    "audit": "deeper audits of keeps",
    "downstream": "downstream task",
    "confirm": "confirmation on fresh seeds",
    "holdout": "scoring on the holdout",
    "verify": "scores verified once more",
    "transfer": "transfer to other budgets and sizes",
}
"""Purpose of a trial in words, in the order in which a campaign comes to them."""

_AFTER = {"checks", "deeper audit of keeps", "downstream"}
"""Checks that come after the training, which they cannot spare."""


def arms(tried: Sequence[Attempt]) -> list[dict[str, Any]]:
    """Compare the proposers: what each tried, kept, gained and cost."""
    found: dict[str, list[Attempt]] = {}
    for attempt in tried:
        if attempt.verdict is not None:
            found.setdefault(attempt.proposer or "(none)", []).append(attempt)
    return [_arm(name, attempts) for name, attempts in found.items()]


def _arm(name: str, attempts: Sequence[Attempt]) -> dict[str, Any]:
    keeps = [attempt for attempt in attempts if attempt.verdict == "keep"]
    hours = sum(t.total_seconds for s in attempts for t in s.runs) / 3600
    costs = [s.usage.cost_usd for s in attempts if s.usage.cost_usd is not None]
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
        "tokens": sum(s.usage.input_tokens + s.usage.output_tokens for s in attempts),
        "dollars": sum(costs) if costs else None,
        "per_dollar": gain / sum(costs) if keeps and sum(costs) else None,
    }


def check_notes(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """What each check looked at, caught, cost, and spared in training (seconds)."""
    tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
    usual = [t.total_seconds for s in tried for t in s.own_runs if t.status == "ok"]
    price = statistics.median(usual) if usual else 0.0
    table = []
    for name, found in _notes(attempts, tried).items():
        caught = sum(not ok for ok, _ in found)
        spares = name not in _AFTER and not name.startswith("guard ")
        table.append(
            {
                "name": name,
                "seen": len(found),
                "caught": caught,
                "seconds": sum(seconds for _, seconds in found),
                "spared": caught * price if spares else None,
            }
        )
    return table


def _notes(
    attempts: Sequence[Attempt], tried: Sequence[Attempt]
) -> dict[str, list[tuple[bool, float]]]:
    """Check to (passed, seconds) of every mutation that it looked at."""
    notes: dict[str, list[tuple[bool, float]]] = {}
    unapplied = sum(s.verdict == "invalid" and not s.check_notes for s in tried)
    if unapplied:
        done = len(tried) - unapplied
        notes["edits apply"] = [(False, 0.0)] * unapplied + [(True, 0.0)] * done
    for attempt in tried:
        for check in attempt.check_notes:
            notes.setdefault(check.name.replace("_", " "), []).append((check.ok, check.seconds))
    known = sum(attempt.verdict == "duplicate" for attempt in tried)
    claimed = sum(bool(attempt.fingerprint) for attempt in tried)
    if known or claimed:
        notes["not tried before"] = [(False, 0.0)] * known + [(True, 0.0)] * claimed
    audits = [
        (run.status == "ok", run.total_seconds)
        for attempt in attempts
        for run in attempt.runs
        if run.purpose == "audit" and run.state == "done"
    ]
    if audits:
        notes["deeper audit of keeps"] = audits
    return notes


def hours(attempts: Sequence[Attempt]) -> list[dict[str, Any]]:
    """What the device hours went into, and the share of each."""
    found: dict[str, list[float]] = {}
    for attempt in attempts:
        for run in attempt.runs:
            found.setdefault(run.purpose, []).append(run.total_seconds)
    whole = sum(map(sum, found.values()))
    order = [*PURPOSES, *(name for name in found if name not in PURPOSES)]
    return [
        {
            "name": PURPOSES.get(purpose, purpose),
            "runs": len(found[purpose]),
            "seconds": sum(found[purpose]),
            "share": sum(found[purpose]) / whole if whole else 0.0,
        }
        for purpose in order
        if purpose in found
    ]


def survivals(
    attempts: Sequence[Attempt], confirmation: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    """Return the keeps that were examined one by one on fresh seeds, the fallen first."""
    keeps = confirmation["keeps"] if confirmation else ()
    known = {attempt.id for attempt in attempts}
    return sorted(
        (keep for keep in keeps if keep["attempt"] in known), key=lambda k: bool(k["held"])
    )


def left_out(attempts: Sequence[Attempt]) -> list[tuple[Attempt, Attempt]]:
    """Return the keeps whose removal cost nothing, each with the attempt that removed it."""
    by_id = {attempt.id: attempt for attempt in attempts}
    return [
        (by_id[row], attempt)
        for attempt in attempts
        if attempt.verdict == "keep"
        for row in attempt.made_from("ablation")
        if row in by_id
    ]
