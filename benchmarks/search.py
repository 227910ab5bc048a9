"""Share of the reachable gain that the search proposers find on a surrogate of a trainer.

    python benchmarks/search.py [--quick] [--proposers NAME ...] [--parents NAME ...]

The real proposers edit a real file of constants. Its "score" is a simulated smooth function of them
with the typical effects of hyperparameters on a small trainer: most have almost no effect, a few
help in one direction, most hurt when moved far, two interact, one crashes beyond a limit. Judge and
parent selection are the production ones: scores of one seed share that seed's noise, close calls
are replicated. It compares proposers and parent selections at equal attempts and equal trainings;
it does not predict the optimum of a real trainer.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import random
import statistics
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import get_args

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import Context, Edit, EditError, PastAttempt, Proposer
from pytest_autoresearch.core.records import Attempt, Champion
from pytest_autoresearch.judge.parents import ParentSelection, next_step
from pytest_autoresearch.judge.verdicts import Judge, Prior, estimate_noise
from pytest_autoresearch.proposers.registry import create
from pytest_autoresearch.source.edits import apply
from pytest_autoresearch.source.search_space import find

SOURCE = """\
DEPTH = 2
WIDTH = 64
MLP_RATIO = 4
WINDOW_PATTERN = "SSSL"
ROPE_BASE = 10000
SOFTCAP = 15.0
EMBEDDING_LR = 0.1
UNEMBEDDING_LR = 0.004
MATRIX_LR = 0.01
SCALAR_LR = 0.2
WEIGHT_DECAY = 0.05
MUON_MOMENTUM = 0.95
ADAM_BETA1 = 0.8
WARMUP_RATIO = 0.0
WARMDOWN_RATIO = 0.4
FINAL_LR_FRAC = 0.0
"""
SEED_SD, PAIR_SD = 0.010, 0.004
SEEDS = (1, 2, 3)


def loss(v: dict[str, object], optimum: dict[str, float]) -> float | None:
    """Return the score without noise, or None for a crash; `optimum` holds the best values."""
    n = {name: float(value) for name, value in v.items() if not isinstance(value, str)}
    if n["MATRIX_LR"] > 0.035 or n["EMBEDDING_LR"] > 0.39 or n["MLP_RATIO"] <= 0:
        return None
    total = 1.9
    for name, weight in (
        ("MATRIX_LR", 0.007), ("EMBEDDING_LR", 0.006), ("MLP_RATIO", 0.012), ("WIDTH", 0.06),
        ("UNEMBEDDING_LR", 0.002), ("SCALAR_LR", 0.002), ("ROPE_BASE", 0.0005), ("SOFTCAP", 0.002),
        ("DEPTH", 0.015),
    ):  # fmt: skip
        total += weight * (math.log2(n[name]) - optimum[name]) ** 2
    for name, weight in (
        ("WARMUP_RATIO", 0.5), ("WARMDOWN_RATIO", 0.2), ("FINAL_LR_FRAC", 0.3),
        ("MUON_MOMENTUM", 2.0), ("ADAM_BETA1", 0.3), ("WEIGHT_DECAY", 0.02),
    ):  # fmt: skip
        total += weight * (n[name] - optimum[name]) ** 2
    more = math.log2(n["MATRIX_LR"]) - optimum["MATRIX_LR"]
    return total + 0.004 * more * (n["WARMDOWN_RATIO"] - optimum["WARMDOWN_RATIO"])


def landscape(rng: random.Random) -> dict[str, float]:
    """Draw an optimum near the current values, with a few hyperparameters worth moving."""
    values = {one.name: one.value for one in find(SOURCE)}
    near: dict[str, float] = {}
    for name, value in values.items():
        if isinstance(value, str):
            continue
        linear = name.endswith(("_RATIO", "_FRAC", "MOMENTUM", "BETA1", "DECAY"))
        if linear and name != "MLP_RATIO":
            near[name] = float(value) + abs(rng.gauss(0, 0.08))
        else:
            near[name] = math.log2(value) + rng.gauss(0, 0.2 if name == "WIDTH" else 0.8)
    return near


def campaign(
    proposer: str, attempts: int, seed: int, selection: ParentSelection
) -> list[tuple[float, int]]:
    """Return after each attempt the champion's share of the reachable gain, and the trainings."""
    rng = random.Random(seed)
    optimum = landscape(rng)
    seed_noise = {s: rng.gauss(0, SEED_SD) for s in range(1, 40)}
    # as many runs of the same code on the same seed as a campaign's calibration makes
    noise = estimate_noise([rng.gauss(0, PAIR_SD) for _ in SEEDS], Prior())
    judge, trainings = Judge(), 0
    experiment = Experiment()

    def truth(text: str) -> float | None:
        return loss({one.name: one.value for one in find(text)}, optimum)

    def measure(text: str, s: int) -> float | None:
        nonlocal trainings
        trainings += 1
        true = truth(text)
        return None if true is None else true + seed_noise[s] + rng.gauss(0, PAIR_SD / math.sqrt(2))

    def applies(edits: Sequence[Edit]) -> bool:
        before = {"train.py": texts[champions[-1].attempt_id]}
        try:
            return apply(before, edits) != before
        except EditError:
            return False

    start = truth(SOURCE)
    assert start is not None
    first = [measure(SOURCE, s) for s in SEEDS]
    scores = {s: score for s, score in zip(SEEDS, first, strict=True) if score is not None}
    base = PastAttempt(
        1, "baseline-1", None, "baseline", "", "", "baseline", "",
        statistics.mean(scores.values()), None, None, 0, 0, {}, lambda: {"train.py": SOURCE},
    )  # fmt: skip
    history, records, found = [base], list[Attempt](), []
    texts, champions = {1: SOURCE}, [Champion(1, 1, "base", {}, 0.0)]
    search: Proposer = create(proposer, experiment=experiment, root=Path("."))
    try:
        for attempt in range(1, attempts + 1):
            chosen = next_step(selection, records, champions, attempt, seed, applies)
            before, best = texts[chosen.parent], texts[champions[-1].attempt_id]
            context = Context(
                experiment, "", attempt, seed, history[chosen.parent - 1], {"train.py": before}, {},
                history, history[champions[-1].attempt_id - 1], noise.sigma,
            )  # fmt: skip
            proposal = chosen.proposal or search.propose(context)
            text = apply({"train.py": before}, proposal.edits)["train.py"]
            candidate: dict[int, float] = {}
            decision, s = None, sorted(scores)[attempt % len(scores)]
            while (score := measure(text, s)) is not None:
                candidate[s] = score
                decision = judge.decide(candidate, scores, noise, attempt)
                if decision.action != "replicate":
                    break
                assert decision.seed is not None
                s = decision.seed
                if s not in scores:
                    extra = measure(best, s)
                    assert extra is not None
                    scores[s] = extra
            kept = decision is not None and decision.action == "keep"
            verdict = "crash" if decision is None else "keep" if kept else "discard"
            number, gain_sigma = attempt + 1, decision.gain_sigma if decision else None
            history.append(
                PastAttempt(
                    number, f"mutation-{attempt:04d}", chosen.parent, proposal.title, "", proposer,
                    verdict, "", statistics.mean(candidate.values()) if candidate else None,
                    decision.gain if decision else None, gain_sigma, 1, 1, proposal.meta,
                    lambda text=text: {"train.py": text},
                )
            )  # fmt: skip
            records.append(
                Attempt(
                    number, "", "mutation", attempt, 1, "", "done", 0.0, parent=chosen.parent,
                    verdict=verdict, gain_sigma=gain_sigma, commit="made",
                    champion_before=champions[-1].attempt_id, edits=proposal.edits,
                    origin=chosen.proposal.origin if chosen.proposal else None,
                )
            )  # fmt: skip
            texts[number] = text
            if kept:
                scores = candidate
                champions.append(Champion(len(champions) + 1, number, "made", {}, 0.0))
            now = truth(texts[champions[-1].attempt_id])
            assert now is not None
            found.append(((start - now) / (start - 1.9), trainings))
    finally:
        search.close()
    return found


def simulate(job: tuple[str, int, int, ParentSelection]) -> list[tuple[float, int]]:
    """Run one campaign, in a process of its own."""
    return campaign(*job)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--proposers", nargs="+", default=["random", "ratchet", "gp"])
    parser.add_argument(
        "--parents",
        nargs="+",
        default=get_args(ParentSelection),
        choices=get_args(ParentSelection),
    )
    options = parser.parse_args()
    attempts, landscapes = (20, 4) if options.quick else (100, 24)
    shown = [n for n in (20, 50, 100) if n <= attempts]
    result: dict[str, dict[str, float]] = {}
    print(f"share of the reachable gain, mean of {landscapes} landscapes, and trainings")
    print(f"{'':18}" + "".join(f"{f'{n} attempts':>16}" for n in shown))
    with ProcessPoolExecutor() as pool:
        for name, selection in itertools.product(options.proposers, options.parents):
            jobs = [(name, attempts, seed, selection) for seed in range(landscapes)]
            runs = list(pool.map(simulate, jobs))
            row = {n: statistics.fmean(run[n - 1][0] for run in runs) for n in shown}
            cost = {n: statistics.fmean(run[n - 1][1] for run in runs) for n in shown}
            cells = "".join(f"{f'{row[n]:.1%} ({cost[n]:.0f})':>16}" for n in shown)
            print(f"{f'{name}, {selection}':18}{cells}", flush=True)
            result[f"{name}, {selection}"] = {str(n): round(row[n], 4) for n in shown}
    print(json.dumps({"share_of_gain": result, "landscapes": landscapes}))


if __name__ == "__main__":
    main()
