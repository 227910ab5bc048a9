"""Simulated campaigns under the production judge and selection, shared by null.py and progress.py.

A score is (true level of the code) + (luck of the seed, shared by all code) + (luck of this code
on this seed), and what mutations gain adds up. Verdicts come from `judge.Judge.decide`, sigma from
`judge.estimate_noise` with the shipped prior, parents, retests and merges from `policy.course`, all
called as a campaign calls them; only training is made up.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from pytest_autoresearch import Edit
from pytest_autoresearch.core.proposal import Origin
from pytest_autoresearch.core.records import Attempt, Champion
from pytest_autoresearch.judge.parents import ParentSelection, next_step
from pytest_autoresearch.judge.verdicts import Judge, Prior, estimate_noise

SEED_SD = 0.010
"""Between seeds; cancels in pairs, and is here so that a judge that forgets to pair is caught."""

Effect = Callable[[random.Random, int], float]
"""Draws the true gain of an attempt's mutation over its parent, positive is better."""


@dataclass(frozen=True)
class Gates:
    """What an attempt costs besides its trainings, in trainings.

    Attributes:
        smoke: Of the smoke run, every attempt.
        duplicates: Share of proposals that repeat an earlier one and are trained all the same.
    """

    smoke: float = 0.0
    duplicates: float = 0.0


@dataclass
class Night:
    """What came of one simulated campaign.

    Attributes:
        attempts: Mutations tried.
        cost: In trainings; calibration, smoke runs and re-measured champions included.
        keeps: Mutations kept.
        not_real: Keeps whose true gain over the champion before them is not positive;
            simplifications are not counted here.
        simplified: Keeps that only a simpler program gets.
        carried: Keeps of which the newest mutation gains nothing itself.
        true_gain: Of the last champion over the baseline.
        claimed_gain: The same by the scores they were kept with.
        lost: True loss that simplifications added up to.
    """

    attempts: int = 0
    cost: float = 0.0
    keeps: int = 0
    not_real: int = 0
    simplified: int = 0
    carried: int = 0
    true_gain: float = 0.0
    claimed_gain: float = 0.0
    lost: float = 0.0


def night(
    judge: Judge,
    rng: random.Random,
    *,
    sigma: float,
    effect: Effect,
    attempts: float = math.inf,
    cost: float = math.inf,
    calibrate: int = 3,
    prior: Prior | None = None,
    check_notes: Gates | None = None,
    seeds: int = 1,
    simpler: float = 0.0,
    selection: ParentSelection = "archive",
) -> Night:
    """Simulate one campaign.

    Args:
        judge: The rule.
        rng: Source of all luck.
        sigma: True standard deviation of one paired difference.
        effect: Of every mutation.
        attempts: How many mutations at most.
        cost: How many trainings at most; the attempt that exceeds it is finished.
        calibrate: Seeds of the baseline.
        prior: What is believed of sigma at the start.
        check_notes: What they cost and save.
        seeds: A new champion is trained until it has so many.
        simpler: Share of mutations that are the simpler program.
        selection: Whose files the next mutation changes.
    """
    own, prior, check_notes = sigma / math.sqrt(2), prior or Prior(), check_notes or Gates()
    ideas = random.Random(rng.getrandbits(64))  # the same ones whatever a rule spends its luck on
    seed_luck: dict[int, float] = {}

    def train(level: float, seed: int) -> float:
        result.cost += 1
        if seed not in seed_luck:
            seed_luck[seed] = rng.gauss(0, SEED_SD)
        return level + seed_luck[seed] + rng.gauss(0, own)

    result = Night()
    champion = {seed: train(0.0, seed) for seed in range(1, calibrate + 1)}
    lineage, groups = _Lineage(), list[dict[int, float]]()
    while result.attempts < attempts and result.cost < cost:
        if check_notes.duplicates and rng.random() < check_notes.duplicates:
            result.cost += 1
            continue
        result.attempts += 1
        result.cost += check_notes.smoke
        at, (parent, fresh, parts) = lineage.level(), lineage.next(selection, result.attempts)
        less = False
        if fresh:
            lineage.gains[fresh] = effect(ideas, result.attempts)
            less = ideas.random() < simpler
        gain = lineage.level(parts) - at
        ordered = sorted(champion)
        seed = ordered[result.attempts % len(ordered)]
        candidate: dict[int, float] = {}
        earns_wealth = result.keeps - result.simplified
        while True:
            candidate[seed] = train(-at - gain, seed)
            noise = estimate_noise(groups, prior)
            decision = judge.decide(candidate, champion, noise, result.attempts, less, earns_wealth)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = train(-at, seed)
        if len(candidate) > 1:
            groups.append({s: candidate[s] - champion[s] for s in candidate if s in champion})
        kept = decision.action == "keep"
        lineage.settle(parent, parts, kept, decision.gain_sigma)
        if kept:
            equal = decision.simplification
            result.keeps += 1
            result.simplified += equal
            result.carried += bool(fresh) and lineage.gains[fresh] <= 0 and not equal
            result.not_real += gain <= 0 and not equal
            result.lost -= min(gain, 0.0) * equal
            result.claimed_gain += decision.gain
            champion = candidate
            while len(champion) < seeds:
                seed = max(champion) + 1
                champion[seed] = train(-at - gain, seed)
    result.true_gain = lineage.level()
    return result


class _Lineage:
    """Which mutations a version of the code consists of, in the records that the selection reads.

    A mutation is one edit that is named after it, and applies where it is not applied yet.

    Attributes:
        gains: Mutation to its true gain.
    """

    def __init__(self) -> None:
        self.gains: dict[int, float] = {}
        self._parts: dict[int, frozenset[int]] = {1: frozenset()}
        self._attempts: list[Attempt] = []
        self._champions = [Champion(1, 1, "base", {}, 0.0)]
        self._edits: tuple[Edit, ...] = ()
        self._origin: Origin | None = None

    def level(self, parts: frozenset[int] | None = None) -> float:
        """True gain over the baseline, of the champion or of given mutations together."""
        if parts is None:
            parts = self._parts[self._champions[-1].attempt_id]
        return math.fsum(self.gains[one] for one in parts)

    def next(self, selection: ParentSelection, number: int) -> tuple[int, int, frozenset[int]]:
        """Return the parent, the new mutation (0: an old idea comes first), and what is tried."""
        best = self._parts[self._champions[-1].attempt_id]
        chosen = next_step(
            selection, self._attempts, self._champions, number, 0,
            lambda edits: len({int(e.search) for e in edits} - best) == len(edits),
        )  # fmt: skip
        if chosen.proposal is None:
            fresh = len(self._attempts) + 2
            self._origin, self._edits = None, (Edit("train.py", str(fresh), ""),)
            return chosen.parent, fresh, self._parts[chosen.parent] | {fresh}
        self._origin, self._edits = chosen.proposal.origin, chosen.proposal.edits
        return chosen.parent, 0, best | {int(edit.search) for edit in self._edits}

    def settle(self, parent: int, parts: frozenset[int], kept: bool, sigmas: float) -> None:
        """Write the attempt's record."""
        number = len(self._attempts) + 2
        self._parts[number] = parts
        self._attempts.append(
            Attempt(
                number, "", "mutation", number - 1, 1, "", "done", 0.0, parent=parent,
                verdict="keep" if kept else "discard", gain_sigma=sigmas, commit="made",
                champion_before=self._champions[-1].attempt_id, edits=self._edits, 
                origin=self._origin,
            )
        )  # fmt: skip
        if kept:
            self._champions.append(Champion(len(self._champions) + 1, number, "made", {}, 0.0))
