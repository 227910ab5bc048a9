"""Where the next mutation starts from, when to change course, and when to stop: pure functions.

The bar is always the champion's; a parent only says whose files the edits apply to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from .experiment import Metric
from .judge import NEAR_MISS
from .mutation import Edit
from .proposers import Proposal
from .records import Champion, SlotRecord

Policy = Literal["greedy", "archive"]

CHAMPION_SHARE = 0.7
"""Share of slots that start from the champion; the rest from near-misses and former champions."""

PATIENCE = 15
"""Slots without a keep after which near-misses are merged and a structural change is wanted."""

MERGED = 4
"""Near-misses, the best ones, of which pairs are merged; so at most six slots for each champion."""

STRUCTURAL = (
    "Many slots in a row kept nothing. Small changes of constants seem to be used up: propose a "
    "structural change."
)


@dataclass(frozen=True)
class Course:
    """What the next slot should do.

    Attributes:
        parent: Ledger row of the slot whose files the edits apply to.
        proposal: Something to try before the proposer is asked, or None.
        hint: A word to the proposer, or ''.
    """

    parent: int
    proposal: Proposal | None = None
    hint: str = ""


def near_misses(slots: Sequence[SlotRecord]) -> list[SlotRecord]:
    """Discards that were better than the champion, but not surely; the best first."""
    found = [
        slot
        for slot in slots
        if slot.verdict == "discard" and (slot.gain_sigma or 0.0) > NEAR_MISS and slot.commit
    ]
    return sorted(found, key=lambda s: (-(s.gain_sigma or 0.0), s.id))


def course(
    policy: Policy,
    slots: Sequence[SlotRecord],
    champions: Sequence[Champion],
    number: int,
    seed: int,
    applies: Callable[[Sequence[Edit]], bool] = lambda edits: True,
) -> Course:
    """Choose parent and direction of a slot; the same inputs give the same choice.

    Args:
        policy: ``greedy``: always the champion, nothing else.
        slots: Of the campaign so far.
        champions: Of the campaign so far, at least one.
        number: Of the slot.
        seed: Of the campaign.
        applies: Whether edits apply to the champion's files; what does not is passed over.
    """
    champion = champions[-1]
    if policy == "greedy":
        return Course(champion.slot_id)
    rng = random.Random(f"{seed}/{number}/policy")
    missed = near_misses(slots)
    if number % 2 == 0 and (again := _retest(slots, missed, champion, applies)) is not None:
        return Course(champion.slot_id, again)
    if since_keep(slots) >= PATIENCE:
        # every other slot, so that the proposer hears of the drought, too
        merged = _merge(slots, missed, champion, applies) if number % 2 else None
        return Course(champion.slot_id, merged, "" if merged else STRUCTURAL)
    if rng.random() < CHAMPION_SHARE:
        return Course(champion.slot_id)
    archive = [s.id for s in missed[:8]] + [c.slot_id for c in champions[:-1]]
    return Course(rng.choice(archive) if archive else champion.slot_id)


def since_keep(slots: Sequence[SlotRecord]) -> int:
    """Finished mutations since the last keep."""
    count = 0
    for slot in reversed(slots):
        if slot.kind == "baseline" or slot.verdict == "keep":
            break
        count += slot.verdict is not None
    return count


def _retest(
    slots: Sequence[SlotRecord],
    missed: Sequence[SlotRecord],
    champion: Champion,
    applies: Callable[[Sequence[Edit]], bool],
) -> Proposal | None:
    """A near-miss against a former champion, once more on the new one."""
    done = {slot.meta.get("retest") for slot in slots}
    for slot in missed:
        old = slot.champion_before not in (None, champion.slot_id)
        new = slot.id not in done and "retest" not in slot.meta
        if old and new and applies(slot.edits):
            return Proposal(
                f"again on the new champion: {slot.title}"[:100],
                slot.edits,
                slot.hypothesis,
                proposer="policy",
                meta={"retest": slot.id},
            )
    return None


def _merge(
    slots: Sequence[SlotRecord],
    missed: Sequence[SlotRecord],
    champion: Champion,
    applies: Callable[[Sequence[Edit]], bool],
) -> Proposal | None:
    """The two best near-misses of this champion together, each pair once, in an order that fits."""
    done = {tuple(slot.meta.get("merged", ())) for slot in slots}
    here = [s for s in missed if s.parent == champion.slot_id and "merged" not in s.meta][:MERGED]
    for one, two in combinations(here, 2):
        pair = tuple(sorted((one.id, two.id)))
        if pair in done:
            continue
        for edits in ((*one.edits, *two.edits), (*two.edits, *one.edits)):
            if applies(edits):
                return Proposal(
                    f"both: {one.title} | {two.title}"[:100],
                    edits,
                    "Two changes that each seemed to help a little, together.",
                    proposer="policy",
                    meta={"merged": list(pair)},
                )
    return None


def stop(
    slots: Sequence[SlotRecord],
    champions: Sequence[Champion],
    metric: Metric,
    *,
    plateau: int = 0,
    target: float | None = None,
    failures: int = 0,
) -> str:
    """Say why a campaign should stop, or ''.

    Args:
        slots: Of the campaign so far.
        champions: Of the campaign so far.
        metric: Its direction says what reaching the target means.
        plateau: Slots without a keep that end it; 0: never.
        target: Mean of the champion that ends it, or None.
        failures: Slots without a score, in a row, that end it; 0: never.
    """
    if target is not None and champions and metric.gain(champions[-1].mean, target) >= 0:
        return f"target reached: {metric.name} {champions[-1].mean:.6f} (target {target:g})"
    if plateau and since_keep(slots) >= plateau:
        return f"plateau: {since_keep(slots)} slots without a keep"
    over = [s for s in slots if s.kind != "baseline" and s.state in ("done", "infra")]
    last = over[-failures:] if failures else []
    if failures and len(last) == failures and all(_failed(slot) for slot in last):
        return f"{failures} slots in a row came to nothing; the last: {last[-1].reason[:200]}"
    return ""


def _failed(slot: SlotRecord) -> bool:
    return slot.state == "infra" or slot.verdict in ("crash", "timeout", "invalid")
