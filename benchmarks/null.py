"""False keeps: campaigns of mutations that change nothing but the random stream.

    python benchmarks/null.py [--quick] [--real RESULTS.jsonl]

Simulated: campaigns of 100 null mutations in worlds with other noise than the judge expects, and
of 6, 20 and 100 in the usual one, which gives `FALSE_KEEPS` of judge/verdicts.py. With ``--real``,
also a campaign of real trainings of the shipped experiment, each with another random stream, judged
as in a campaign. Scores are appended to the file and not measured again.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import get_args

from simulation import MEASURED, Outcome, Practice, World, simulate_campaign

from pytest_autoresearch import Budget
from pytest_autoresearch.judge.verdicts import Judge, Prior, Rule, estimate_noise

ROOT = Path(__file__).resolve().parent.parent
REAL_ATTEMPTS = 200
REAL_BUDGET = "100ktok"
LENGTHS = (6, 20, 100)
USUAL, OWN = Practice(), Practice(prior=None)


@dataclass(frozen=True)
class Scenario:
    """A world and what the campaign assumes of it.

    Attributes:
        world: Of the noise.
        practice: With the prior, or without for a metric of the user's.
        rule: Of the judge.
        attempts: Null mutations.
    """

    world: World
    practice: Practice = USUAL
    rule: Rule = "sequential"
    attempts: int = 100

    def campaign(self, number: int) -> Outcome:
        """Simulate one campaign."""
        return simulate_campaign(
            Judge(self.rule), random.Random(number), effect=lambda *_: 0.0, world=self.world,
            practice=self.practice, attempts=self.attempts,
        )  # fmt: skip


ITEM = 0.005
"""One of 200 items of an accuracy."""

SCENARIOS = {
    "as measured: half literal edits": Scenario(MEASURED),
    "structural edits only": Scenario(World()),
    **{
        f"prior {times:g} of the noise": Scenario(World(), Practice(prior=Prior(times * 0.006)))
        for times in (0.2, 0.5, 3.0)
    },
    "heavy tails (t, 3 degrees)": Scenario(World(tails="t3")),
    "unequal noise, 1/2 to 2": Scenario(World(unequal=2.0)),
    "own metric": Scenario(World(), OWN),
    "own metric, heavy tails": Scenario(World(tails="t3"), OWN),
    "drift of 1 sigma": Scenario(World(drift=1.0), OWN),
    "drift of 3 sigma": Scenario(World(drift=3.0), OWN),
    **{
        f"accuracy of 200, sd {items:g} items": Scenario(
            World(sigma=2**0.5 * items * ITEM, literal=2**0.5 * items * ITEM, step=ITEM), OWN
        )
        for items in (1.0, 0.5, 0.3)
    },
}
LONG = {f"{n} attempts": Scenario(MEASURED, attempts=n) for n in LENGTHS}
RULES = {rule: Scenario(MEASURED, rule=rule) for rule in get_args(Rule)[1:]}


def simulate(scenario: Scenario, campaigns: Sequence[int]) -> list[int]:
    """Return the keeps of each campaign."""
    return [scenario.campaign(number).keeps for number in campaigns]


class Pool:
    """Real trainings of the shipped code, one a seed and stream, remembered in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[int, int], float] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.known[row["stream"], row["seed"]] = row["score"]
        self.files = {"train.py": (ROOT / "train.py").read_bytes()}

    def score(self, stream: int, seed: int) -> float:
        """Train and score, in the sandbox, with the trusted evaluator."""
        from pytest_autoresearch.core.run import RunSpec
        from pytest_autoresearch.forkserver.launch import Launcher
        from pytest_autoresearch.training.run import execute

        if (stream, seed) not in self.known:
            launcher = Launcher()
            with tempfile.TemporaryDirectory() as folder:
                spec = RunSpec(
                    "null", self.files, "train.py", seed, Budget.parse(REAL_BUDGET),
                    ROOT / ".autoresearch/data/stdlib", stream=stream,
                )  # fmt: skip
                result = execute(spec, launcher, Path(folder))
            launcher.close()
            assert result.score is not None, result.reason
            self.known[stream, seed] = result.score
            with self.path.open("a") as file:
                row = {"stream": stream, "seed": seed, "score": result.score}
                file.write(json.dumps(row) + "\n")
        return self.known[stream, seed]


def real(pool: Pool, rule: Rule, attempts: int) -> tuple[int, float, float]:
    """Judge real null mutations; return the keeps, their claimed gain and the final sigma."""
    judge, best = Judge(rule), 0
    champion = {seed: pool.score(0, seed) for seed in (1, 2, 3)}
    repeats = [pool.score(10_000, seed) - champion[seed] for seed in champion]
    keeps, claimed = 0, 0.0
    for attempt in range(1, attempts + 1):
        seed = sorted(champion)[attempt % len(champion)]
        if attempt % 20 == 0:
            repeats.append(pool.score(10_000 + attempt, seed) - champion[seed])
        candidate: dict[int, float] = {}
        while True:
            candidate[seed] = pool.score(attempt, seed)
            decision = judge.decide(
                candidate, champion, estimate_noise(repeats, Prior()), attempt
            )
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if decision.remeasure_champion:
                champion[seed] = pool.score(best, seed)
        if decision.action == "keep":
            keeps, claimed = keeps + 1, claimed + decision.gain
            best, champion = attempt, candidate
    return keeps, claimed, estimate_noise(repeats, Prior()).sigma


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--real", type=Path, metavar="RESULTS.jsonl")
    parser.add_argument("--campaigns", type=int, default=1000)
    options = parser.parse_args()
    campaigns = 40 if options.quick else options.campaigns
    parts = [range(n, campaigns, 8) for n in range(8)]
    with ProcessPoolExecutor() as pool:
        tasks = {
            name: [pool.submit(simulate, scenario, part) for part in parts]
            for name, scenario in {**SCENARIOS, **LONG, **RULES}.items()
        }
        keeps = {
            name: [keep for task in some for keep in task.result()] for name, some in tasks.items()
        }
    rate = {name: statistics.fmean(found) for name, found in keeps.items()}
    once = {name: statistics.fmean(map(bool, found)) for name, found in keeps.items()}
    print(f"false keeps of {campaigns} simulated campaigns of null mutations")
    print(f"{'':36}{'a campaign':>12}{'± se':>8}{'with one':>10}")
    for name, found in keeps.items():
        error = statistics.stdev(found) / campaigns**0.5
        print(f"{name:36}{rate[name]:12.3f}{error:8.3f}{once[name]:10.1%}")
    line: dict[str, object] = {
        "false_keeps_per_100": {name: round(rate[name], 3) for name in {**SCENARIOS, **RULES}},
        "worst": round(max(rate[name] for name in SCENARIOS), 3),
        "by_length": {n: [round(rate[name], 3), round(once[name], 3)]
                      for n, name in zip(LENGTHS, LONG, strict=True)},
    }  # fmt: skip
    if options.real:
        attempts = 20 if options.quick else REAL_ATTEMPTS
        trainings = Pool(options.real)
        print(f"\n{attempts} real null mutations, {REAL_BUDGET} each")
        for rule in get_args(Rule):
            kept, claimed, sigma = real(trainings, rule, attempts)
            print(f"{rule:12}{kept:4} kept, claimed {claimed:.4f}, sigma {sigma:.4f}")
            line[f"real_{rule}"] = {"attempts": attempts, "keeps": kept, "sigma": round(sigma, 5)}
    print(json.dumps(line))


if __name__ == "__main__":
    main()
