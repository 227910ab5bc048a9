"""Parent selection, retests and merges of near-misses, and stop conditions: pure functions.

The bar is always the champion's; the parent only determines the files that the edits apply to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations, takewhile
from typing import Literal

from ..core.experiment import Metric
from ..core.proposal import Edit, Origin, Proposal
from ..core.records import Attempt, Champion
from .confirmation import level
from .families import EXHAUSTED, exhausted
from .verdicts import NEAR_MISS, NO_OP

ParentSelection = Literal["champion", "archive"]

STACKED = 0.95
"""Share of attempts that build on a discard with a positive gain, where there is one. Half of the
null mutations have a positive gain, but the judge compares the whole stack with the champion, so
small true gains add up at no extra training (benchmarks/progress.py and benchmarks/search.py)."""

BEST = 3
"""Number of such discards, the best ones, from which the parent is drawn."""

PATIENCE = 15
"""Attempts without a keep after which near-misses are merged and structural changes requested."""

FORMER = 0.05
"""Share of attempts after `PATIENCE` that start from a former champion. This escapes local optima,
but is expensive: gains made since that champion must be found again."""

MERGED = 4
"""Number of best near-misses that are merged in pairs: at most six attempts per champion."""

STRUCTURAL = (
    "Many attempts in a row kept nothing. Small changes of constants seem to be exhausted: "
    "propose a structural change."
)

OTHER_FAMILY = (
    "The last {} ideas were all of the family {!r}, and none was kept: propose one of another "
    "family."
)

Applies = Callable[[Sequence[Edit]], bool]


@dataclass(frozen=True)
class NextStep:
    """The starting point of the next attempt.

    Attributes:
        parent: Ledger row of the attempt whose files the edits apply to.
        proposal: A proposal to try instead of asking the proposer, or None.
        hint: Request to the proposer, or ''.
    """

    parent: int
    proposal: Proposal | None = None
    hint: str = ""


def near_misses(attempts: Sequence[Attempt], above: float = NEAR_MISS) -> list[Attempt]:
    """Return the discards with a gain of more than `above` standard errors, the best first."""
    found = [
        attempt
        for attempt in attempts
        if attempt.kind == "mutation" and attempt.verdict == "discard" and attempt.commit
        and (attempt.gain_sigma or 0.0) > above
    ]  # fmt: skip
    return sorted(found, key=lambda attempt: (-(attempt.gain_sigma or 0.0), attempt.id))


def next_step(
    selection: ParentSelection,
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    number: int,
    seed: int,
    applies: Applies = lambda edits: True,
) -> NextStep:
    """Choose parent and direction of an attempt; equal inputs give equal choices.

    Args:
        selection: ``champion``: always the champion, nothing else.
        attempts: Of the campaign so far.
        champions: Of the campaign so far, at least one.
        number: Of the attempt.
        seed: Of the campaign.
        applies: Returns whether edits apply to the champion's files; others are skipped.
    """
    champion = champions[-1]
    if selection == "champion":
        return NextStep(champion.attempt_id)
    rng = random.Random(f"{seed}/{number}/policy")
    drought = since_keep(attempts)
    if candidates := near_misses(attempts):
        past = _Past(attempts, champions)
        if number % 2 == 0 and (retest := _retest(past, candidates, champion, applies)) is not None:
            return NextStep(champion.attempt_id, retest)
        # one merge per `PATIENCE` attempts, so that the proposer gets the structural hint, too
        due = past.merges_since_keep < drought // PATIENCE
        if due and (merged := _merge(past, candidates, champion, applies)) is not None:
            return NextStep(champion.attempt_id, merged)
    hint = _hint(attempts, drought)
    stackable = _best_of_stacks(
        [
            attempt
            for attempt in near_misses(attempts, above=NO_OP)
            if attempt.champion_before == champion.attempt_id
        ]
    )
    draw = rng.random()
    if stackable and draw < STACKED:
        return NextStep(rng.choice(stackable[:BEST]).id, hint=hint)
    if drought >= PATIENCE and champions[:-1] and draw > 1 - FORMER:
        return NextStep(rng.choice(champions[:-1]).attempt_id, hint=hint)
    return NextStep(champion.attempt_id, hint=hint)


def _hint(attempts: Sequence[Attempt], drought: int) -> str:
    """Return what a proposer is asked for besides an improvement, or ''."""
    if family := exhausted(_after_keep(attempts)):
        return OTHER_FAMILY.format(EXHAUSTED, family)
    return STRUCTURAL if drought >= PATIENCE else ""


def _best_of_stacks(discards: Sequence[Attempt]) -> list[Attempt]:
    """Leave out the discards that a better one was built on, or that were built on a better one.

    Args:
        discards: The best first.
    """
    by_id = {one.id: one for one in discards}
    lines: list[set[int]] = []
    best = []
    for one in discards:
        line = {below.id for below in stack(one, by_id, ())}
        if not any(line & other for other in lines):
            best.append(one)
        lines.append(line)
    return best


def stack(
    attempt: Attempt, by_id: Mapping[int, Attempt], champion_attempts: Collection[int]
) -> list[Attempt]:
    """Return the discards that a mutation was built on, oldest first, and the mutation itself.

    Args:
        attempt: The mutation.
        by_id: All attempts that it may descend from.
        champion_attempts: Attempts that became champions.
    """
    stacked = [attempt]
    while (parent := stacked[0].parent) is not None and parent not in champion_attempts:
        if (below := by_id.get(parent)) is None:
            break
        stacked.insert(0, below)
    return stacked


def built_on(discards: Iterable[Attempt]) -> str:
    """Format, for a commit message, the discards that a mutation includes."""
    return "Built on " + "; ".join(f"{one.name}: {one.title}" for one in discards) + "."


def _after_keep(attempts: Sequence[Attempt]) -> Iterable[Attempt]:
    """Return the attempts since the last keep or baseline, newest first."""
    return takewhile(lambda a: a.kind != "baseline" and a.verdict != "keep", reversed(attempts))


def since_keep(attempts: Sequence[Attempt]) -> int:
    """Count the finished mutations since the last keep."""
    return sum(attempt.verdict is not None for attempt in _after_keep(attempts))


class _Past:
    """Contents of the champion, and the retests and merges so far.

    Attributes:
        retested: Attempts that were retested.
        merged: Pairs of attempts that were merged.
        merges_since_keep: Merges tried since the last keep.
    """

    def __init__(self, attempts: Sequence[Attempt], champions: Sequence[Champion]) -> None:
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._champion_attempts = {champion.attempt_id for champion in champions}
        self._included: set[int] = set()
        self._include(self._champion_attempts)
        self.retested = {row for attempt in attempts for row in attempt.made_from("retest")}
        self.merged = {attempt.made_from("merge") for attempt in attempts}
        self.merges_since_keep = sum(
            bool(attempt.made_from("merge")) for attempt in _after_keep(attempts)
        )

    def _include(self, ids: Iterable[int]) -> None:
        """Mark attempts, with their stacks, merges and retests, as part of the champion."""
        for attempt in (self._by_id[row] for row in ids if row in self._by_id):
            for one in stack(attempt, self._by_id, self._champion_attempts):
                if one.id not in self._included:
                    self._included.add(one.id)
                    self._include(one.made_from("merge") + one.made_from("retest"))

    def missing(self, attempt: Attempt) -> dict[int, Attempt]:
        """Return the parts of a mutation that the champion does not include, oldest first."""
        parts = stack(attempt, self._by_id, self._champion_attempts)
        return {part.id: part for part in parts if part.id not in self._included}


def _retest(
    past: _Past, candidates: Sequence[Attempt], champion: Champion, applies: Applies
) -> Proposal | None:
    """Propose a near-miss of a former champion again, on the current one."""
    for attempt in candidates:
        if (
            attempt.champion_before not in (None, champion.attempt_id)
            and attempt.id not in past.retested
            and not attempt.made_from("retest")
            and (edits := _edits(past.missing(attempt)))
            and applies(edits)
        ):
            return Proposal(
                f"again on the new champion: {attempt.title}"[:100],
                edits,
                attempt.hypothesis,
                proposer="policy",
                origin=Origin("retest", (attempt.id,)),
            )
    return None


def _merge(
    past: _Past, candidates: Sequence[Attempt], champion: Champion, applies: Applies
) -> Proposal | None:
    """Propose two of the best near-misses of this champion together, each pair once."""
    own = [
        attempt
        for attempt in candidates
        if attempt.champion_before == champion.attempt_id and not attempt.made_from("merge")
    ]
    for one, two in combinations(own[:MERGED], 2):
        pair = (min(one.id, two.id), max(one.id, two.id))
        first, second = past.missing(one), past.missing(two)
        nested = first.keys() <= second.keys() or second.keys() <= first.keys()
        if pair in past.merged or nested:
            continue
        for parts in ({**first, **second}, {**second, **first}):
            if applies(edits := _edits(parts)):
                return Proposal(
                    f"both: {one.title} | {two.title}"[:100],
                    edits,
                    "Two changes that each seemed to help a little, together.",
                    proposer="policy",
                    origin=Origin("merge", pair),
                )
    return None


def _edits(parts: Mapping[int, Attempt]) -> tuple[Edit, ...]:
    return tuple(edit for part in parts.values() for edit in part.edits)


def stop(
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    metric: Metric,
    *,
    plateau: int = 0,
    target: float | None = None,
    failures: int = 0,
    everything: Sequence[Attempt] = (),
) -> str:
    """Return why a campaign should stop, or ''.

    Args:
        attempts: Of the session so far.
        champions: Of the campaign so far.
        metric: Determines in which direction the target is reached.
        plateau: Attempts without a keep after which to stop; 0: never.
        target: Score at which to stop, or None; the champion's is taken on the baseline's seeds.
        failures: Consecutive attempts without a score after which to stop; 0: never.
        everything: All attempts of the campaign, if `attempts` are not.
    """
    if target is not None and champions:
        reached = level(everything or attempts, champions, metric)
        if metric.gain(reached, target) >= 0:
            return f"target reached: {metric.name} {reached:.6f} (target {target:g})"
    if plateau and since_keep(attempts) >= plateau:
        return f"plateau: {since_keep(attempts)} attempts without a keep"
    ended = [a for a in attempts if a.kind != "baseline" and a.state in ("done", "infra")]
    last = ended[-failures:] if failures else []
    if failures and len(last) == failures and all(_failed(attempt) for attempt in last):
        return f"{failures} attempts in a row failed; the last: {last[-1].reason[:200]}"
    return ""


def _failed(attempt: Attempt) -> bool:
    return attempt.state == "infra" or attempt.verdict in ("crash", "timeout", "invalid")
