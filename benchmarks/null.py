"""False keeps: campaigns of mutations that change nothing but the random stream.

    python benchmarks/null.py [--quick] [--real RESULTS.jsonl]

Simulated: 2,000 campaigns of 100 null mutations per rule and per true noise, sigma estimated
inside the simulation as production does. With ``--real``, additionally a pool of real trainings
of the shipped experiment at a short budget, null mutations all of them, judged slot by slot as a
campaign would; what is measured is appended to the file, and what is in it is not trained again.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import tempfile
from pathlib import Path
from typing import get_args

from simulation import night

from pytest_autoresearch.experiment import Budget
from pytest_autoresearch.judge import Judge, Prior, Rule, estimate_noise

ROOT = Path(__file__).resolve().parent.parent
REAL_SLOTS = 200
REAL_BUDGET = "100ktok"


def simulated(nights: int, slots: int) -> dict[str, dict[str, float]]:
    """False keeps per campaign, by rule and true sigma over the prior's."""
    table: dict[str, dict[str, float]] = {}
    for rule in get_args(Rule):
        table[rule] = {}
        for share in (0.5, 1.0, 2.0):
            sigma = share * Prior().sigma
            found = [
                night(Judge(rule), random.Random(n), sigma=sigma, effect=lambda _: 0.0, slots=slots)
                for n in range(nights)
            ]
            table[rule][f"{share:g}"] = statistics.fmean(one.keeps for one in found)
    return table


class Pool:
    """Real trainings of null mutations, each (mutation, seed) once, remembered in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.known: dict[tuple[int, int], float] = {}
        if path.exists():
            for line in path.read_text().splitlines():
                row = json.loads(line)
                self.known[row["mutation"], row["seed"]] = row["score"]
        self.source = (ROOT / "train.py").read_text()
        self._launcher = None

    def files(self, mutation: int) -> dict[str, bytes]:
        """The shipped code with `mutation` more numbers drawn before the model is built."""
        head = "def build(vocab_size, seq_len):\n"
        assert self.source.count(head) == 1
        draw = f"    torch.rand({mutation})\n" if mutation else ""
        return {"train.py": self.source.replace(head, head + draw).encode()}

    def score(self, mutation: int, seed: int) -> float:
        """Train and score, in the sandbox, with the trusted evaluator."""
        from pytest_autoresearch.trial import TrialSpec
        from pytest_autoresearch.trial.launch import Launcher
        from pytest_autoresearch.trial.run import run_trial

        if (mutation, seed) in self.known:
            return self.known[mutation, seed]
        if self._launcher is None:
            self._launcher = Launcher()
        with tempfile.TemporaryDirectory() as folder:
            spec = TrialSpec(
                "null", self.files(mutation), "train.py", seed, Budget.parse(REAL_BUDGET),
                ROOT / ".autoresearch/data/stdlib",
            )  # fmt: skip
            result = run_trial(spec, self._launcher, Path(folder))
        assert result.score is not None, result.reason
        self.known[mutation, seed] = result.score
        with self.path.open("a") as file:
            row = {"mutation": mutation, "seed": seed, "score": result.score}
            file.write(json.dumps(row) + "\n")
        return result.score

    def close(self) -> None:
        """End the trials' processes."""
        if self._launcher is not None:
            self._launcher.close()


def real(pool: Pool, rule: Rule, slots: int) -> tuple[int, float]:
    """Keeps among `slots` real null mutations, and the sigma that the judge ended with."""
    judge = Judge(rule)
    champion = {seed: pool.score(0, seed) for seed in (1, 2, 3)}
    prior, groups, keeps = Prior(), [], 0
    for slot in range(1, slots + 1):
        seed = sorted(champion)[slot % len(champion)]
        candidate: dict[int, float] = {}
        while True:
            candidate[seed] = pool.score(slot, seed)
            decision = judge.decide(candidate, champion, estimate_noise(groups, prior), slot)
            if decision.action != "replicate":
                break
            assert decision.seed is not None
            seed = decision.seed
            if seed not in champion:
                champion[seed] = pool.score(0, seed)
        if len(candidate) > 1:
            groups.append({s: candidate[s] - champion[s] for s in candidate})
        # the champion stays: each slot asks anew whether nothing is taken for something
        keeps += decision.action == "keep"
    return keeps, estimate_noise(groups, prior).sigma


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--real", type=Path, metavar="RESULTS.jsonl")
    options = parser.parse_args()
    nights = 100 if options.quick else 2000
    table = simulated(nights, 100)
    print(f"false keeps per campaign of 100 null mutations; {nights} campaigns each")
    print(f"{'true sigma / prior':20}" + "".join(f"{share:>10}" for share in table["confirm"]))
    for rule, row in table.items():
        print(f"{rule:20}" + "".join(f"{value:10.3f}" for value in row.values()))
    line: dict[str, object] = {
        "false_keeps_per_100": {rule: row["1"] for rule, row in table.items()}
    }
    if options.real:
        pool = Pool(options.real)
        slots = 20 if options.quick else REAL_SLOTS
        try:
            counts = {rule: real(pool, rule, slots) for rule in ("confirm", "greedy", "strict")}
        finally:
            pool.close()
        print(f"\nreal null mutations, {REAL_BUDGET} each, {len(pool.known)} trainings")
        for rule, (keeps, sigma) in counts.items():
            print(f"{rule:10}{keeps:4} kept of {slots}   sigma {sigma:.4f}")
        line |= {
            "real_null_slots": slots,
            "real_null_keeps": counts["confirm"][0],
            "real_null_keeps_greedy": counts["greedy"][0],
        }
    print(json.dumps(line))


if __name__ == "__main__":
    main()
