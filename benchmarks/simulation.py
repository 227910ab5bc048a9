"""Simulated campaigns under the production judge, shared by null.py and progress.py.

A score is (true level of the code) + (luck of the seed, shared by all code) + (luck of this code
on this seed). Verdicts come from `judge.Judge.decide`, sigma from `judge.estimate_noise` with the
shipped prior, both called exactly as a campaign calls them; only training is made up.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from dataclasses import dataclass

from pytest_autoresearch.judge import Judge, Prior, estimate_noise

SEED_SD = 0.010
"""Between seeds; cancels in pairs, and is here so that a judge that forgets to pair is caught."""

Effect = Callable[[random.Random, int], float]
"""Draws the true gain of a slot's mutation over its champion, positive is better."""


@dataclass(frozen=True)
class Gates:
    """What a slot costs besides its trainings, in trainings.

    Attributes:
        smoke: Of the smoke run, every slot.
        saved: Share of a first training that the early stop saves, on average.
        duplicates: Share of proposals that repeat an earlier one and are trained all the same.
    """

    smoke: float = 0.0
    saved: float = 0.0
    duplicates: float = 0.0


@dataclass
class Night:
    """What came of one simulated campaign.

    Attributes:
        slots: Mutations tried.
        cost: In trainings; calibration, smoke runs and re-measured champions included.
        keeps: Mutations kept.
        not_real: Keeps whose true gain over the champion before them is not positive;
            simplifications are not counted here.
        simplified: Keeps that only a simpler program gets.
        true_gain: Of the last champion over the baseline.
        claimed_gain: The same by the scores they were kept with.
        lost: True loss that simplifications added up to.
    """

    slots: int = 0
    cost: float = 0.0
    keeps: int = 0
    not_real: int = 0
    simplified: int = 0
    true_gain: float = 0.0
    claimed_gain: float = 0.0
    lost: float = 0.0


def night(
    judge: Judge,
    rng: random.Random,
    *,
    sigma: float,
    effect: Effect,
    slots: float = math.inf,
    cost: float = math.inf,
    calibrate: int = 3,
    prior: Prior | None = None,
    gates: Gates | None = None,
    seeds: int = 1,
    simpler: float = 0.0,
) -> Night:
    """Simulate one campaign.

    Args:
        judge: The rule.
        rng: Source of all luck.
        sigma: True standard deviation of one paired difference.
        effect: Of every mutation.
        slots: How many mutations at most.
        cost: How many trainings at most; the slot that exceeds it is finished.
        calibrate: Seeds of the baseline.
        prior: What is believed of sigma at the start.
        gates: What they cost and save.
        seeds: A new champion is trained until it has so many.
        simpler: Share of mutations that are the simpler program.
    """
    own, prior, gates = sigma / math.sqrt(2), prior or Prior(), gates or Gates()
    ideas = random.Random(rng.getrandbits(64))  # the same ones whatever a rule spends its luck on
    seed_luck: dict[int, float] = {}

    def train(level: float, seed: int, share: float = 1.0) -> float:
        result.cost += share
        if seed not in seed_luck:
            seed_luck[seed] = rng.gauss(0, SEED_SD)
        return level + seed_luck[seed] + rng.gauss(0, own)

    result, level = Night(), 0.0
    champion = {seed: train(level, seed) for seed in range(1, calibrate + 1)}
    groups: list[dict[int, float]] = []
    while result.slots < slots and result.cost < cost:
        if gates.duplicates and rng.random() < gates.duplicates:
            result.cost += 1
            continue
        result.slots += 1
        result.cost += gates.smoke
        gain, less = effect(ideas, result.slots), ideas.random() < simpler
        ordered = sorted(champion)
        seed = ordered[result.slots % len(ordered)]
        candidate: dict[int, float] = {}
        earned = result.keeps - result.simplified
        while True:
            first = not candidate
            candidate[seed] = train(level - gain, seed, 1 - gates.saved if first else 1)
            noise = estimate_noise(groups, prior)
            decision = judge.decide(candidate, champion, noise, result.slots, less, earned)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = train(level, seed)
        if len(candidate) > 1:
            groups.append({s: candidate[s] - champion[s] for s in candidate if s in champion})
        if decision.action == "keep":
            equal = decision.simplification
            result.keeps += 1
            result.simplified += equal
            result.not_real += gain <= 0 and not equal
            result.lost -= min(gain, 0.0) * equal
            result.claimed_gain += decision.gain
            level -= gain
            champion = candidate
            while len(champion) < seeds:
                seed = max(champion) + 1
                champion[seed] = train(level, seed)
    result.true_gain = -level
    return result
