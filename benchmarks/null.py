"""False keeps: campaigns of mutations that change nothing but the random stream.

    python benchmarks/null.py [--quick] [--real RESULTS.jsonl]

Simulated: 2,000 campaigns of 100 null mutations per rule and true noise; sigma is estimated as in
production. With ``--real``, also campaigns of real trainings of the shipped experiment with null
mutations only, judged as in a campaign, and the noise of a pair at several budgets. Scores are
appended to the file and not measured again.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from simulation import simulate_campaign

from pytest_autoresearch import Budget
from pytest_autoresearch.judge.verdicts import Judge, Prior, Rule, estimate_noise

ROOT = Path(__file__).resolve().parent.parent
REAL_ATTEMPTS = 200
REAL_BUDGET = "100ktok"
NOISE_BUDGETS = ("50ktok", "100ktok", "300ktok", "600ktok")
NOISE_RUNS = 16
SHARES = (1 / 3, 0.5, 1.0, 1.5, 2.0)
"""True sigma over the prior's; a campaign does not know it."""


def simulated(campaigns: int, attempts: int) -> dict[Rule, dict[float, float]]:
    """Return the false keeps per campaign, by rule and true sigma over the prior's."""
    table: dict[Rule, dict[float, float]] = {}
    for rule in get_args(Rule):
        table[rule] = {}
        for share in SHARES:
            sigma = share * Prior().sigma
            found = [
                simulate_campaign(
                    Judge(rule), random.Random(n), sigma=sigma, effect=lambda *_: 0.0,
                    attempts=attempts,
                )
                for n in range(campaigns)
            ]  # fmt: skip
            table[rule][share] = statistics.fmean(one.keeps for one in found)
    return table


class Pool:
    """Real trainings of null mutations, each once a budget and seed, remembered in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[str, int, int], float] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                key = row.get("budget", REAL_BUDGET), row["mutation"], row["seed"]
                self.known[key] = row["score"]
        self.source = (ROOT / "train.py").read_text()
        self._launcher = None

    def files(self, mutation: int) -> dict[str, bytes]:
        """Return the shipped code with other initial weights: `mutation` is part of their key."""
        key = "{torch.initial_seed()} {name}"
        assert self.source.count(key) == 1
        other = f"{key} {mutation}" if mutation else key
        return {"train.py": self.source.replace(key, other).encode()}

    def score(self, mutation: int, seed: int, budget: str = REAL_BUDGET) -> float:
        """Train and score, in the sandbox, with the trusted evaluator."""
        from pytest_autoresearch.core.run import RunSpec
        from pytest_autoresearch.forkserver.launch import Launcher
        from pytest_autoresearch.training.run import execute

        key = budget, mutation, seed
        if key in self.known:
            return self.known[key]
        if self._launcher is None:
            self._launcher = Launcher()
        with tempfile.TemporaryDirectory() as folder:
            spec = RunSpec(
                "null", self.files(mutation), "train.py", seed, Budget.parse(budget),
                ROOT / ".autoresearch/data/stdlib",
            )  # fmt: skip
            result = execute(spec, self._launcher, Path(folder))
        assert result.score is not None, result.reason
        self.known[key] = result.score
        with self.path.open("a") as file:
            row = {"budget": budget, "mutation": mutation, "seed": seed, "score": result.score}
            file.write(json.dumps(row) + "\n")
        return result.score

    def close(self) -> None:
        """End the processes of the runs."""
        if self._launcher is not None:
            self._launcher.close()


@dataclass(frozen=True)
class Real:
    """The result of a campaign of real null mutations.

    Attributes:
        keeps: Mutations kept.
        claimed: Apparent gain of the last champion, summed over keeps.
        sigma: Final estimate of the judge, of one pair.
    """

    keeps: int
    claimed: float
    sigma: float


def real(pool: Pool, rule: Rule, attempts: int) -> Real:
    """Judge `attempts` real null mutations as a campaign does; a keep is the next champion."""
    judge, prior = Judge(rule), Prior()
    seeds = (1,) if rule == "greedy" else (1, 2, 3)
    best, champion = 0, {seed: pool.score(0, seed) for seed in seeds}
    groups: list[Mapping[int, float]] = []
    keeps, claimed = 0, 0.0
    for attempt in range(1, attempts + 1):
        seed = sorted(champion)[attempt % len(champion)]
        candidate: dict[int, float] = {}
        while True:
            candidate[seed] = pool.score(attempt, seed)
            noise = estimate_noise(groups, prior)
            decision = judge.decide(candidate, champion, noise, attempt, keeps=keeps)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = pool.score(best, seed)
        if len(candidate) > 1:
            groups.append({s: candidate[s] - champion[s] for s in candidate})
        if decision.action == "keep":
            keeps, claimed = keeps + 1, claimed + decision.gain
            best, champion = attempt, candidate
    return Real(keeps, claimed, estimate_noise(groups, prior).sigma)


def noise_at(pool: Pool, budget: str, runs: int) -> tuple[float, float]:
    """Sigma of a pair that differs in its random stream alone, and its relative standard error."""
    scores = [pool.score(mutation, 1, budget) for mutation in range(runs)]
    return math.sqrt(2) * statistics.stdev(scores), 1 / math.sqrt(2 * (runs - 1))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--real", type=Path, metavar="RESULTS.jsonl")
    options = parser.parse_args()
    campaigns = 100 if options.quick else 2000
    table = simulated(campaigns, 100)
    print(f"false keeps per campaign of 100 null mutations; {campaigns} campaigns each")
    print(f"{'true sigma':12}" + "".join(f"{share * Prior().sigma:9.4f}" for share in SHARES))
    for rule, row in table.items():
        print(f"{rule:12}" + "".join(f"{value:9.3f}" for value in row.values()))
    line: dict[str, object] = {
        "false_keeps_per_100": {rule: row[1.0] for rule, row in table.items()}
    }
    if options.real:
        attempts, runs = (20, 4) if options.quick else (REAL_ATTEMPTS, NOISE_RUNS)
        pool = Pool(options.real)
        try:
            found = {rule: real(pool, rule, attempts) for rule in get_args(Rule)}
            noise = {budget: noise_at(pool, budget, runs) for budget in NOISE_BUDGETS}
        finally:
            pool.close()
        print(f"\n{attempts} real null mutations, {REAL_BUDGET} each")
        for rule, one in found.items():
            print(f"{rule:12}{one.keeps:4} kept, claimed {one.claimed:.4f}, sigma {one.sigma:.4f}")
        print(f"\nsigma of a pair on one seed, {runs} real null mutations each")
        for budget, (sigma, error) in noise.items():
            print(f"{budget:12}{sigma:9.4f} ± {error * sigma:.4f}")
        line |= {
            "real_null_attempts": attempts,
            "real_null_keeps": found["sequential"].keeps,
            "real_null_keeps_greedy": found["greedy"].keeps,
            "sigma_by_budget": {budget: round(sigma, 5) for budget, (sigma, _) in noise.items()},
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
