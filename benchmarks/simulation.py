"""Simulated campaigns with the production judge and parent selection, for null.py and progress.py.

A score is (true level of the code) + (noise of the seed, shared by all code) + (noise of this code
on this seed); gains of mutations add up. Verdicts come from `Judge.decide`, sigma from
`estimate_noise` with the shipped prior, parents, retests and merges from `next_step`, called as in
a campaign; only the training is simulated.
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
"""Between seeds; cancels in pairs, and would expose a judge that does not pair."""

Effect = Callable[[random.Random, int], float]
"""Draws the true gain of an attempt's mutation over its parent, positive is better."""


@dataclass(frozen=True)
class Checks:
    """Costs of an attempt besides its trainings, in trainings.

    Attributes:
        smoke: Cost of the smoke run, for every attempt.
        duplicates: Share of proposals that repeat an earlier one and are still trained.
    """

    smoke: float = 0.0
    duplicates: float = 0.0


@dataclass
class Outcome:
    """The result of one simulated campaign.

    Attributes:
        attempts: Mutations tried.
        cost: In trainings; calibration, smoke runs and re-measured champions included.
        keeps: Mutations kept.
        not_real: Keeps whose true gain over the champion before them is not positive;
            simplifications are not counted here.
        simplified: Keeps of equal but simpler programs.
        carried: Keeps whose newest mutation gains nothing by itself.
        true_gain: Of the last champion over the baseline.
        claimed_gain: The same by the scores they were kept with.
        lost: True loss summed over simplifications.
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


def simulate_campaign(
    judge: Judge,
    rng: random.Random,
    *,
    sigma: float,
    effect: Effect,
    attempts: float = math.inf,
    cost: float = math.inf,
    calibrate: int = 3,
    prior: Prior | None = None,
    checks: Checks | None = None,
    seeds: int = 1,
    simpler: float = 0.0,
    selection: ParentSelection = "archive",
) -> Outcome:
    """Simulate one campaign.

    Args:
        judge: The rule.
        rng: Source of all randomness.
        sigma: True standard deviation of one paired difference.
        effect: True gain of each mutation.
        attempts: Maximum number of mutations.
        cost: Maximum number of trainings; the attempt that exceeds it is finished.
        calibrate: Seeds of the baseline.
        prior: Noise assumed at the start.
        checks: Costs besides training.
        seeds: A new champion is trained until it has so many.
        simpler: Share of mutations that are the simpler program.
        selection: Parent selection.
    """
    own, prior, checks = sigma / math.sqrt(2), prior or Prior(), checks or Checks()
    ideas = random.Random(rng.getrandbits(64))  # the same ones for every rule
    seed_noise: dict[int, float] = {}

    def train(level: float, seed: int) -> float:
        result.cost += 1
        if seed not in seed_noise:
            seed_noise[seed] = rng.gauss(0, SEED_SD)
        return level + seed_noise[seed] + rng.gauss(0, own)

    result = Outcome()
    champion = {seed: train(0.0, seed) for seed in range(1, calibrate + 1)}
    lineage, groups = _Lineage(), list[dict[int, float]]()
    while result.attempts < attempts and result.cost < cost:
        if checks.duplicates and rng.random() < checks.duplicates:
            result.cost += 1
            continue
        result.attempts += 1
        result.cost += checks.smoke
        at, (parent, fresh, parts) = lineage.level(), lineage.next(selection, result.attempts)
        less = False
        if fresh:
            lineage.gains[fresh] = effect(ideas, result.attempts)
            less = ideas.random() < simpler
        gain = lineage.level(parts) - at
        ordered = sorted(champion)
        seed = ordered[result.attempts % len(ordered)]
        candidate: dict[int, float] = {}
        gainful = result.keeps - result.simplified
        while True:
            candidate[seed] = train(-at - gain, seed)
            noise = estimate_noise(groups, prior)
            decision = judge.decide(candidate, champion, noise, result.attempts, less, gainful)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = train(-at, seed)
        if len(candidate) > 1:
            groups.append({s: candidate[s] - champion[s] for s in candidate if s in champion})
        kept = decision.action == "keep"
        lineage.record(parent, parts, kept, decision.gain_sigma)
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
    """The mutations in each version of the code, as records that the parent selection reads.

    A mutation is one edit, named after it, that applies where it is not applied yet.

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
        """Return the true gain over the baseline, of the champion or of given mutations."""
        if parts is None:
            parts = self._parts[self._champions[-1].attempt_id]
        return math.fsum(self.gains[one] for one in parts)

    def next(self, selection: ParentSelection, number: int) -> tuple[int, int, frozenset[int]]:
        """Return the parent, the new mutation (0: a retest or merge), and the mutations to try."""
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

    def record(self, parent: int, parts: frozenset[int], kept: bool, sigmas: float) -> None:
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
