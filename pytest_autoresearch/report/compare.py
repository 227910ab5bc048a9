"""What the HTML report compares: proposers, checks, where the hours went, keeps on fresh seeds."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from ..core.records import PRUNE, SlotRecord

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


def arms(tried: Sequence[SlotRecord]) -> list[dict[str, Any]]:
    """Compare the proposers: what each tried, kept, gained and cost."""
    found: dict[str, list[SlotRecord]] = {}
    for slot in tried:
        if slot.verdict is not None:
            found.setdefault(slot.proposer or "(none)", []).append(slot)
    return [_arm(name, slots) for name, slots in found.items()]


def _arm(name: str, slots: Sequence[SlotRecord]) -> dict[str, Any]:
    keeps = [slot for slot in slots if slot.verdict == "keep"]
    hours = sum(t.total_seconds for s in slots for t in s.trials) / 3600
    costs = [s.usage.cost_usd for s in slots if s.usage.cost_usd is not None]
    gain = sum(slot.gain or 0.0 for slot in keeps)
    return {
        "name": name,
        "tried": len(slots),
        "kept": len(keeps),
        "failed": sum(slot.score is None for slot in slots),
        "gain": gain if keeps else None,
        "per_trial": gain / len(slots) if keeps else None,
        "hours": hours,
        "per_hour": gain / hours if keeps and hours else None,
        "tokens": sum(s.usage.input_tokens + s.usage.output_tokens for s in slots),
        "dollars": sum(costs) if costs else None,
        "per_dollar": gain / sum(costs) if keeps and sum(costs) else None,
    }


def gates(slots: Sequence[SlotRecord]) -> list[dict[str, Any]]:
    """What each check looked at, caught, cost, and spared in training (seconds)."""
    tried = [slot for slot in slots if slot.kind != "baseline"]
    usual = [t.total_seconds for s in tried for t in s.own_trials if t.status == "ok"]
    price = statistics.median(usual) if usual else 0.0
    table = []
    for name, found in _notes(slots, tried).items():
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
    first = [t for s in tried for t in s.own_trials if t.purpose == "first" and t.status]
    hopeless = [t for t in first if t.status == "hopeless"]
    if hopeless:
        table.append(
            {
                "name": "early stop",
                "seen": len(first),
                "caught": len(hopeless),
                "seconds": 0.0,
                "spared": sum(max(0.0, price - t.total_seconds) for t in hopeless),
            }
        )
    return table


def _notes(
    slots: Sequence[SlotRecord], tried: Sequence[SlotRecord]
) -> dict[str, list[tuple[bool, float]]]:
    """Check to (passed, seconds) of every mutation that it looked at."""
    notes: dict[str, list[tuple[bool, float]]] = {}
    unapplied = sum(s.verdict == "invalid" and not s.gates for s in tried)
    if unapplied:
        done = len(tried) - unapplied
        notes["edits apply"] = [(False, 0.0)] * unapplied + [(True, 0.0)] * done
    for slot in tried:
        for gate in slot.gates:
            notes.setdefault(gate.name.replace("_", " "), []).append((gate.ok, gate.seconds))
    known = sum(slot.verdict == "duplicate" for slot in tried)
    claimed = sum(bool(slot.fingerprint) for slot in tried)
    if known or claimed:
        notes["not tried before"] = [(False, 0.0)] * known + [(True, 0.0)] * claimed
    audits = [
        (trial.status == "ok", trial.total_seconds)
        for slot in slots
        for trial in slot.trials
        if trial.purpose == "audit" and trial.state == "done"
    ]
    if audits:
        notes["deeper audit of keeps"] = audits
    return notes


def hours(slots: Sequence[SlotRecord]) -> list[dict[str, Any]]:
    """What the device hours went into, and the share of each."""
    found: dict[str, list[float]] = {}
    for slot in slots:
        for trial in slot.trials:
            found.setdefault(trial.purpose, []).append(trial.total_seconds)
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
    slots: Sequence[SlotRecord], closing: Mapping[str, Any] | None
) -> list[Mapping[str, Any]]:
    """Return the keeps that were examined one by one on fresh seeds, the fallen first."""
    keeps = closing["keeps"] if closing else ()
    known = {slot.id for slot in slots}
    return sorted((keep for keep in keeps if keep["slot"] in known), key=lambda k: bool(k["held"]))


def left_out(slots: Sequence[SlotRecord]) -> list[tuple[SlotRecord, SlotRecord]]:
    """Return the keeps whose removal cost nothing, each with the slot that removed it."""
    by_id = {slot.id: slot for slot in slots}
    return [
        (by_id[slot.meta["removes"]], slot)
        for slot in slots
        if slot.kind == PRUNE and slot.verdict == "keep" and slot.meta.get("removes") in by_id
    ]
