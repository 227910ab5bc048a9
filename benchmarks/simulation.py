"""Simulated campaigns with the production judge and parent selection, for null.py and progress.py.

A score is (true level of the code) + (noise of the seed, shared by all code) + (luck of this code
on this seed). Gains of mutations add up. A mutation inherits a part of its parent's luck: a literal
edit most of it, a structural edit none. Verdicts come from `Judge.decide`, sigma from
`estimate_noise`, parents, retests and merges from `next_step`, called as in a campaign; only the
training is simulated.
"""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from pytest_autoresearch import Edit
from pytest_autoresearch.core.proposal import Origin
from pytest_autoresearch.core.records import Attempt, Champion
from pytest_autoresearch.judge.parents import ParentSelection, next_step
from pytest_autoresearch.judge.verdicts import Judge, Noise, Prior, estimate_noise, resolution

SEED_SD = 0.010
"""Between seeds; cancels in pairs, and would expose a judge that does not pair."""

Effect = Callable[[random.Random, int], float]
"""Draws the true gain of an attempt's mutation over its parent, positive is better."""


@dataclass(frozen=True)
class World:
    """How scores scatter.

    Attributes:
        sigma: Standard deviation of a pair of a structural edit, and of two streams of one code.
        literal: The same for a literal edit.
        literals: Share of literal edits.
        tails: ``t3``: Student's distribution with three degrees of freedom and the same deviation.
        unequal: A mutation's noise is up to so many times larger or smaller.
        drift: Gain in sigma that every 100 attempts make by themselves: a machine that gets faster.
        step: Scores are rounded to multiples of it.
    """

    sigma: float = 0.006
    literal: float = 0.006
    literals: float = 0.0
    tails: Literal["normal", "t3"] = "normal"
    unequal: float = 1.0
    drift: float = 0.0
    step: float = 0.0

    def draw(self, rng: random.Random) -> float:
        """Draw a deviate of mean 0 and variance 1."""
        if self.tails == "normal":
            return rng.gauss(0, 1)
        chi2 = sum(rng.gauss(0, 1) ** 2 for _ in range(3))
        return rng.gauss(0, 1) / math.sqrt(chi2)  # t3 has variance 3

    def inherited(self, rng: random.Random) -> float:
        """Draw which part of its parent's luck a mutation inherits."""
        return 1 - (self.literal / self.sigma) ** 2 if rng.random() < self.literals else 0.0


MEASURED = World(literal=0.0025, literals=0.5)
"""The shipped experiment (benchmarks/noise.py); half of the mutations are literal edits."""


@dataclass(frozen=True)
class Screen:
    """Races several ideas at a part of the budget; the best is trained in full if it looks better.

    Attributes:
        ideas: That are raced.
        cost: Of one of them, in trainings.
        noise: Standard deviation of a pair at that budget.
        carried: Correlation of the effects at both budgets.
    """

    ideas: int
    cost: float
    noise: float
    carried: float

    def draw(self, rng: random.Random, effect: Effect, number: int) -> tuple[float, float]:
        """Return the true gain of the idea that wins, and the cost of the races."""
        cost, own = 0.0, math.sqrt(1 - self.carried**2)
        while True:
            raced = []
            for _ in range(self.ideas):
                gain, other = effect(rng, number), effect(rng, number)
                shown = self.carried * gain + own * other + rng.gauss(0, self.noise)
                raced.append((shown, gain))
            cost += self.ideas * self.cost
            shown, gain = max(raced)
            if shown > 0:
                return gain, cost


@dataclass(frozen=True)
class Practice:
    """What a campaign does besides judging.

    Attributes:
        prior: Noise assumed at the start; None for a metric of unknown scale.
        calibrate: Seeds of the baseline.
        repeats: Runs of the baseline with another random stream.
        repeat_every: Attempts between two repeats of the champion; 0 for none.
        smoke: Cost of the smoke run in trainings, for every attempt.
        duplicates: Share of proposals that repeat an earlier one and are still trained.
        selection: Parent selection.
        oracle: Sees the true gain after one training.
        screen: Races before a training.
    """

    prior: Prior | None = field(default_factory=Prior)
    calibrate: int = 3
    repeats: int = 3
    repeat_every: int = 20
    smoke: float = 0.0
    duplicates: float = 0.0
    selection: ParentSelection = "archive"
    oracle: bool = False
    screen: Screen | None = None


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
        sigma: As estimated at the end.
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
    sigma: float = 0.0


class _Code:
    """One version of the code.

    Attributes:
        level: Its true gain over the baseline.
        luck: Seed to its luck there, in standard deviations.
    """

    def __init__(
        self, rng: random.Random, world: World, level: float, parent: _Code | None
    ) -> None:
        self.level = level
        self._rng, self._world, self._parent = rng, world, parent
        self._share = world.inherited(rng) if parent is not None else 0.0
        unequal = math.log(world.unequal)
        self._times = math.exp(rng.uniform(-unequal, unequal)) if parent is not None else 1.0
        self._luck: dict[int, float] = {}

    def luck(self, seed: int) -> float:
        if seed not in self._luck:
            fresh = self._times * self._world.draw(self._rng)
            old = self._parent.luck(seed) if self._share and self._parent is not None else 0.0
            self._luck[seed] = self._share * old + math.sqrt(1 - self._share**2) * fresh
        return self._luck[seed]


class _Night:
    """The trainings of one campaign, and what they cost."""

    def __init__(self, rng: random.Random, world: World, result: Outcome) -> None:
        self.rng, self.world, self.result = rng, world, result
        self._seeds: dict[int, float] = {}

    def train(self, code: _Code, seed: int, again: bool = False) -> float:
        """Return the score, lower is better; `again` with another random stream."""
        self.result.cost += 1
        world = self.world
        if seed not in self._seeds:
            self._seeds[seed] = self.rng.gauss(0, SEED_SD)
        luck = world.draw(self.rng) if again else code.luck(seed)
        drift = world.drift * world.sigma * self.result.attempts / 100
        score = 1 - code.level - drift + self._seeds[seed] + world.sigma / math.sqrt(2) * luck
        return round(score / world.step) * world.step if world.step else score


def simulate_campaign(
    judge: Judge,
    rng: random.Random,
    *,
    effect: Effect,
    world: World = MEASURED,
    practice: Practice | None = None,
    attempts: float = math.inf,
    cost: float = math.inf,
    simpler: float = 0.0,
) -> Outcome:
    """Simulate one campaign.

    Args:
        judge: The rule.
        rng: Source of all randomness.
        effect: True gain of each mutation.
        world: Of the noise.
        practice: What is done besides judging.
        attempts: Maximum number of mutations.
        cost: Maximum number of trainings; the attempt that exceeds it is finished.
        simpler: Share of mutations that are the simpler program.
    """
    practice, result = practice or Practice(), Outcome()
    ideas = random.Random(rng.getrandbits(64))  # the same ones for every rule
    night = _Night(rng, world, result)
    best = base = _Code(rng, world, 0.0, None)
    champion = {seed: night.train(base, seed) for seed in range(1, practice.calibrate + 1)}
    seen = list(champion.values())
    repeats: list[float] = []
    for i in range(practice.repeats):
        seed = 1 + i % practice.calibrate
        repeats.append(night.train(base, seed, again=True) - champion[seed])
        seen.append(champion[seed] + repeats[-1])
    lineage, codes, spent = _Lineage(), {1: base}, 0
    while result.attempts < attempts and result.cost < cost:
        if practice.duplicates and rng.random() < practice.duplicates:
            result.cost += 1
            continue
        result.attempts += 1
        result.cost += practice.smoke
        number = result.attempts
        if practice.repeat_every and number % practice.repeat_every == 0:
            seed = sorted(champion)[number // practice.repeat_every % len(champion)]
            score = night.train(best, seed, again=True)
            repeats.append(score - champion[seed])
            if world.drift:
                champion = {seed: score}
        parent, fresh, parts = lineage.next(practice.selection, number)
        less = False
        if fresh:
            if practice.screen:
                lineage.gains[fresh], paid = practice.screen.draw(ideas, effect, number)
                result.cost += paid
            else:
                lineage.gains[fresh] = effect(ideas, number)
            less = ideas.random() < simpler and spent <= max(1, result.keeps - result.simplified)
        code = _Code(rng, world, lineage.level(parts), codes[parent])
        gain = code.level - best.level
        noise = _noise(repeats, practice.prior, seen)
        ordered = sorted(champion)
        seed = ordered[number % len(ordered)]
        candidate: dict[int, float] = {}
        while True:
            candidate[seed] = night.train(code, seed)
            decision = judge.decide(candidate, champion, noise, number, less)
            if practice.oracle or decision.action != "replicate":
                break
            assert decision.seed is not None
            spent += less and decision.gain_sigma < judge.futility[0]
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = night.train(best, seed)
        seen.extend(candidate.values())
        kept = gain > 0 if practice.oracle else decision.action == "keep"
        sigmas = gain / world.sigma if practice.oracle else decision.gain_sigma
        number = lineage.record(parent, parts, kept, sigmas)
        codes[number] = code
        if kept:
            equal = decision.simplification
            result.keeps += 1
            result.simplified += equal
            result.carried += bool(fresh) and lineage.gains[fresh] <= 0 and not equal
            result.not_real += gain <= 0 and not equal
            result.lost -= min(gain, 0.0) * equal
            result.claimed_gain += decision.gain
            champion, best = candidate, code
    result.true_gain = best.level
    result.sigma = _noise(repeats, practice.prior, seen).sigma
    return result


def _noise(repeats: list[float], prior: Prior | None, scores: list[float]) -> Noise:
    """Estimate as `noise_of` does."""
    floor = max(1e-9, resolution(scores[:100]))
    if repeats and not any(repeats) and len(set(scores[:3])) == 1:
        return Noise(floor, 1e9, True)
    if not any(repeats):
        spread = Prior(SEED_SD * math.sqrt(2), 2.0)
        return estimate_noise([], spread if prior is None else Prior(prior.sigma, 8.0), floor)
    if prior is None:
        prior = Prior(math.sqrt(statistics.fmean(value * value for value in repeats)), 1.0)
    return estimate_noise(repeats, prior, floor)


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

    def record(self, parent: int, parts: frozenset[int], kept: bool, sigmas: float) -> int:
        """Write the attempt's record and return its row."""
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
        return number
