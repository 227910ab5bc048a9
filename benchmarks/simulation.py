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


@dataclass
class Night:
    """What came of one simulated campaign.

    Attributes:
        slots: Mutations tried.
        trials: Trainings, calibration and re-measurements of champions included.
        keeps: Mutations kept.
        not_real: Keeps whose true gain over the champion before them is not positive.
        true_gain: Of the last champion over the baseline.
        claimed_gain: The same by the scores they were kept with.
    """

    slots: int = 0
    trials: int = 0
    keeps: int = 0
    not_real: int = 0
    true_gain: float = 0.0
    claimed_gain: float = 0.0


def night(
    judge: Judge,
    rng: random.Random,
    *,
    sigma: float,
    effect: Callable[[random.Random], float],
    slots: int | None = None,
    trials: int | None = None,
    calibrate: int = 3,
    prior: Prior | None = None,
) -> Night:
    """Simulate one campaign.

    Args:
        judge: The rule.
        rng: Source of all luck.
        sigma: True standard deviation of one paired difference.
        effect: Draws the true gain of a mutation over its champion, positive is better.
        slots: How many mutations, or None.
        trials: How many trainings, or None; the slot that exceeds it is finished.
        calibrate: Seeds of the baseline.
        prior: What is believed of sigma at the start.
    """
    own, prior = sigma / math.sqrt(2), prior or Prior()
    seed_luck: dict[int, float] = {}

    def train(level: float, seed: int) -> float:
        result.trials += 1
        if seed not in seed_luck:
            seed_luck[seed] = rng.gauss(0, SEED_SD)
        return level + seed_luck[seed] + rng.gauss(0, own)

    result, level = Night(), 0.0
    champion = {seed: train(level, seed) for seed in range(1, calibrate + 1)}
    groups: list[dict[int, float]] = []
    while (slots is None or result.slots < slots) and (trials is None or result.trials < trials):
        result.slots += 1
        gain = effect(rng)
        ordered = sorted(champion)
        seed = ordered[result.slots % len(ordered)]
        candidate: dict[int, float] = {}
        while True:
            candidate[seed] = train(level - gain, seed)
            noise = estimate_noise(groups, prior)
            decision = judge.decide(candidate, champion, noise, result.slots)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = train(level, seed)
        if len(candidate) > 1:
            groups.append({s: candidate[s] - champion[s] for s in candidate if s in champion})
        if decision.action == "keep":
            result.keeps += 1
            result.not_real += gain <= 0
            result.claimed_gain += decision.gain
            level -= gain
            champion = candidate
    result.true_gain = -level
    return result
