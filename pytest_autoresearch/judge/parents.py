"""Where the next mutation starts from, when to change course, and when to stop: pure functions.

The bar is always the champion's; a parent only says whose files the edits apply to.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

from ..core.experiment import Metric
from ..core.proposal import Edit, Origin, Proposal
from ..core.records import Attempt, Champion
from .verdicts import NEAR_MISS

ParentSelection = Literal["champion", "archive"]

STACKED = 0.95
"""Share of attempts that build on a discard that was better than the champion, where there is one. It
is a bet, since half of what does nothing is better, and the judge holds the whole of it against the
champion. Small gains add up that way until they are surely one, at no training of its own; compared
in benchmarks/progress.py and benchmarks/search.py."""

BEST = 3
"""Such discards, the best ones, among which the one to build on is drawn."""

PATIENCE = 15
"""Attempts without a keep after which near-misses are merged and a structural change is wanted."""

FORMER = 0.05
"""Share of attempts in a drought that start from a former champion: a way out of a dead end, and dear,
since what it lacks must be gained again first."""

MERGED = 4
"""Near-misses, the best ones, of which pairs are merged; so at most six attempts for each champion."""

STRUCTURAL = (
    "Many attempts in a row kept nothing. Small changes of constants seem to be used up: propose a "
    "structural change."
)


@dataclass(frozen=True)
class NextStep:
    """What the next attempt should do.

    Attributes:
        parent: Ledger row of the attempt whose files the edits apply to.
        proposal: Something to try before the proposer is asked, or None.
        hint: A word to the proposer, or ''.
    """

    parent: int
    proposal: Proposal | None = None
    hint: str = ""


def near_misses(attempts: Sequence[Attempt], above: float = NEAR_MISS) -> list[Attempt]:
    """Discards that were better than the champion, but not surely; the best first.

    Args:
        attempts: Of the campaign so far.
        above: Standard errors.
    """
    found = [
        attempt
        for attempt in attempts
        if attempt.kind == "mutation" and attempt.verdict == "discard" and attempt.commit
        and (attempt.gain_sigma or 0.0) > above
    ]  # fmt: skip
    return sorted(found, key=lambda s: (-(s.gain_sigma or 0.0), s.id))


def next_step(
    selection: ParentSelection,
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    number: int,
    seed: int,
    applies: Callable[[Sequence[Edit]], bool] = lambda edits: True,
) -> NextStep:
    """Choose parent and direction of an attempt; the same inputs give the same choice.

    Args:
        selection: ``champion``: always the champion, nothing else.
        attempts: Of the campaign so far.
        champions: Of the campaign so far, at least one.
        number: Of the attempt.
        seed: Of the campaign.
        applies: Whether edits apply to the champion's files; what does not is passed over.
    """
    champion = champions[-1]
    if selection == "champion":
        return NextStep(champion.attempt_id)
    rng = random.Random(f"{seed}/{number}/policy")
    drought = since_keep(attempts)
    if missed := near_misses(attempts):
        past = _Past(attempts, champions)
        if number % 2 == 0 and (again := _retest(past, missed, champion, applies)) is not None:
            return NextStep(champion.attempt_id, again)
        # one for every stretch of patience, so that the proposer hears of the drought, too
        late = past.merges() < drought // PATIENCE
        if late and (merged := _merge(past, missed, champion, applies)) is not None:
            return NextStep(champion.attempt_id, merged)
    hint = STRUCTURAL if drought >= PATIENCE else ""
    here = [s for s in near_misses(attempts, above=0.0) if s.champion_before == champion.attempt_id]
    lot = rng.random()
    if here and lot < STACKED:
        return NextStep(rng.choice(here[:BEST]).id, hint=hint)
    if drought >= PATIENCE and champions[:-1] and lot > 1 - FORMER:
        return NextStep(rng.choice(champions[:-1]).attempt_id, hint=hint)
    return NextStep(champion.attempt_id, hint=hint)


def stack(attempt: Attempt, by_id: Mapping[int, Attempt], made: Collection[int]) -> list[Attempt]:
    """Return what a mutation consists of: the discards it was built on, oldest first, and itself.

    Args:
        attempt: The mutation.
        by_id: All it may descend from.
        made: Attempts that made a champion.
    """
    found = [attempt]
    while (below := found[0].parent) is not None and below not in made and below in by_id:
        found.insert(0, by_id[below])
    return found


def built_on(below: Iterable[Attempt]) -> str:
    """Say in a commit what a mutation has in it besides its own change."""
    return "Built on " + "; ".join(f"{one.name}: {one.title}" for one in below) + "."


def since_keep(attempts: Sequence[Attempt]) -> int:
    """Finished mutations since the last keep."""
    count = 0
    for attempt in reversed(attempts):
        if attempt.kind == "baseline" or attempt.verdict == "keep":
            break
        count += attempt.verdict is not None
    return count


class _Past:
    """What the attempts of a campaign say of the policy's own doing."""

    def __init__(self, attempts: Sequence[Attempt], champions: Sequence[Champion]) -> None:
        self._attempts = attempts
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._made = {champion.attempt_id for champion in champions}
        self._inside: set[int] = set()
        self._take_in(self._made)
        self.retested = {row for attempt in attempts for row in attempt.made_from("retest")}
        self.merged = {attempt.made_from("merge") for attempt in attempts}

    def _take_in(self, ids: Iterable[int]) -> None:
        """Note what the champion is made of: what was kept, with what it was built on."""
        for attempt in (self._by_id[one] for one in ids if one in self._by_id):
            for one in self._stack(attempt):
                if one.id not in self._inside:
                    self._inside.add(one.id)
                    self._take_in(one.made_from("merge") + one.made_from("retest"))

    def _stack(self, attempt: Attempt) -> list[Attempt]:
        return stack(attempt, self._by_id, self._made)

    def lacking(self, attempt: Attempt) -> dict[int, Attempt]:
        """What a mutation consists of and the champion lacks, oldest first."""
        return {one.id: one for one in self._stack(attempt) if one.id not in self._inside}

    def merges(self) -> int:
        """Merges that were tried since the last keep."""
        count = 0
        for attempt in reversed(self._attempts):
            if attempt.kind == "baseline" or attempt.verdict == "keep":
                break
            count += bool(attempt.made_from("merge"))
        return count


def _retest(
    past: _Past,
    missed: Sequence[Attempt],
    champion: Champion,
    applies: Callable[[Sequence[Edit]], bool],
) -> Proposal | None:
    """A near-miss against a former champion, once more on the new one."""
    for attempt in missed:
        old = attempt.champion_before not in (None, champion.attempt_id)
        new = attempt.id not in past.retested and not attempt.made_from("retest")
        if old and new and (edits := _edits(past.lacking(attempt))) and applies(edits):
            return Proposal(
                f"again on the new champion: {attempt.title}"[:100],
                edits,
                attempt.hypothesis,
                proposer="policy",
                origin=Origin("retest", (attempt.id,)),
            )
    return None


def _merge(
    past: _Past,
    missed: Sequence[Attempt],
    champion: Champion,
    applies: Callable[[Sequence[Edit]], bool],
) -> Proposal | None:
    """The two best near-misses of this champion together, each pair once, in an order that fits."""
    own = [
        s for s in missed if s.champion_before == champion.attempt_id and not s.made_from("merge")
    ]
    for one, two in combinations(own[:MERGED], 2):
        pair = tuple(sorted((one.id, two.id)))
        first, second = past.lacking(one), past.lacking(two)
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
    return tuple(edit for one in parts.values() for edit in one.edits)


def stop(
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    metric: Metric,
    *,
    plateau: int = 0,
    target: float | None = None,
    failures: int = 0,
) -> str:
    """Say why a campaign should stop, or ''.

    Args:
        attempts: Of the campaign so far.
        champions: Of the campaign so far.
        metric: Its direction says what reaching the target means.
        plateau: Attempts without a keep that end it; 0: never.
        target: Mean of the champion that ends it, or None.
        failures: Attempts without a score, in a row, that end it; 0: never.
    """
    if target is not None and champions and metric.gain(champions[-1].mean, target) >= 0:
        return f"target reached: {metric.name} {champions[-1].mean:.6f} (target {target:g})"
    if plateau and since_keep(attempts) >= plateau:
        return f"plateau: {since_keep(attempts)} attempts without a keep"
    over = [s for s in attempts if s.kind != "baseline" and s.state in ("done", "infra")]
    last = over[-failures:] if failures else []
    if failures and len(last) == failures and all(_failed(attempt) for attempt in last):
        return f"{failures} attempts in a row came to nothing; the last: {last[-1].reason[:200]}"
    return ""


def _failed(attempt: Attempt) -> bool:
    return attempt.state == "infra" or attempt.verdict in ("crash", "timeout", "invalid")
