"""Noise of a paired difference: real trainings of known edits on the shipped experiment.

    python benchmarks/noise.py [--quick] [--seeds 8] [--jobs 2] [--budget equal:600ktok]
                               [--average] [--only TEXT] [--log FILE]

Trains the baseline twice and ten edits of it once on every seed, under the campaign's own clock and
plan of costs, and prints the scatter of each paired difference. ``identical`` pairs are the
baseline's two runs on one seed. ``tokens_sd_percent`` is the scatter of the tokens of one program,
``cost_sd_percent`` that of the cost which single runs measure. ``--average`` scores the mean of the
last weights of every program in place of the last ones. A quarter of the budget shows whether
effects carry over. Finished runs are kept in ``--log``, from which an interrupted benchmark goes
on. About 96 runs of 20 CPU seconds; ``--quick`` has two seeds, three edits and a twentieth of the
budget. Needs the data of ``python prepare.py``.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from pytest_autoresearch.campaign.costs import plan_cost, program
from pytest_autoresearch.core.experiment import Budget
from pytest_autoresearch.core.run import Allowances, Purpose, Run, RunSpec
from pytest_autoresearch.forkserver.launch import Launcher
from pytest_autoresearch.training.run import execute

ROOT = Path(__file__).resolve().parent.parent
FIRST_SEED = 1

LITERAL = {
    "matrix rate x 1.2": ("MATRIX_LR", 1.2),
    "embedding rate x 1.25": ("EMBEDDING_LR", 1.25),
    "beta1 x 1.06": ("ADAM_BETA1", 1.06),
    "warm-down x 1.25": ("WARMDOWN_RATIO", 1.25),
    "rotary base x 2": ("ROPE_BASE", 2),
}
"""Edits that change neither shapes nor cost: a constant, and its factor."""

STRUCTURAL = {
    "half the MLP": ("MLP_RATIO", 0.5),
    "one more block": ("DEPTH", 1.5),
    "one block less": ("DEPTH", 0.5),
    "heads of half the width": ("HEAD_DIM", 0.5),
    "width x 1.5": ("WIDTH", 1.5),
}

AVERAGE_LAST = 0.1
"""Share of the budget whose weights `--average` averages."""


@dataclass(frozen=True)
class Job:
    """The runs of one program, in order of the seeds."""

    name: str
    source: str
    seeds: tuple[int, ...]
    budget: Budget
    baseline: tuple[Run, ...] = ()


def scaled(source: str, constant: str, factor: float) -> str:
    """Multiply a constant; of ``A if CUDA else B``, the value for a CPU."""
    pattern = re.compile(rf"^({constant} = (?:.* if CUDA else )?)([\d.*]+)", re.MULTILINE)
    found = pattern.search(source)
    assert found, constant
    value = eval(found[2], {}) * factor  # a number of our own file
    text = str(round(value)) if value == round(value) and value >= 1 else f"{value:.4g}"
    return source[: found.start(2)] + text + source[found.end(2) :]


def averaged(source: str) -> str:
    """Return a program that ends with the mean of its weights over the last part of the budget."""
    body = f"""
_train = train


def train(model, batches):
    total, count = {{}}, 0

    def watched(rows, seq_len):
        nonlocal count
        for x, y, progress in batches(rows, seq_len):
            if progress > {1 - AVERAGE_LAST}:
                count += 1
                for name, value in model.state_dict().items():
                    total[name] = total.get(name, 0) + value.detach()
            yield x, y, progress

    watched.report = batches.report
    _train(model, watched)
    if count:
        model.load_state_dict({{name: value / count for name, value in total.items()}})


if __name__ == "__main__":"""
    assert source.count('\nif __name__ == "__main__":') == 1
    return source.replace('\nif __name__ == "__main__":', body)


def train_all(job: Job) -> list[dict[str, Any]]:
    """Train one program on every seed, each run planned from those before it."""
    source, runs = job.source, list[Run]()
    original = (ROOT / "train.py").read_text()
    is_baseline = job.name.startswith("baseline")
    name, baseline_name = program({"train.py": source}), program({"train.py": original})
    if is_baseline:
        baseline_name = name
    with tempfile.TemporaryDirectory() as folder, Launcher() as launcher:
        for seed in job.seeds:
            spec = RunSpec(
                run_id="noise",
                files={"train.py": source.encode()},
                entry="train.py",
                seed=seed,
                budget=job.budget,
                data=ROOT / ".autoresearch/data/stdlib",
                purpose=Purpose.FIRST,
                reference_files={"train.py": original.encode()},
                allowances=Allowances.of(job.baseline, job.budget),
                plan=plan_cost(
                    name, baseline_name, job.baseline, runs, () if is_baseline else job.baseline,
                    literal=True,  # each edit changes one constant
                ),
            )
            run = execute(spec, launcher, Path(folder))
            assert run.score is not None, f"{job.name}: {run.reason}"
            runs.append(_planned(run, name))
            clock = run.evidence["clock"]
            print(
                f"{job.name:28} seed {seed}: {run.score:.6f} after {run.work:.0f} tokens, "
                f"cost {clock['measured_cost']:.3f}{'' if clock['planned'] else ' (measured)'}",
                flush=True,
            )
    return [row(job.name, seed, run) for seed, run in zip(job.seeds, runs, strict=True)]


def _planned(run: Run, name: str) -> Run:
    return Run(run.status, score=run.score, work=run.work, steps=run.steps,
               evidence={**run.evidence, "program": name})  # fmt: skip


def row(name: str, seed: int, run: Run) -> dict[str, Any]:
    """Return what is kept of a run."""
    keys = ("clock", "charged", "program")
    evidence = {key: run.evidence[key] for key in keys if key in run.evidence}
    return {
        "name": name, "seed": seed, "score": run.score, "tokens": run.work, "steps": run.steps,
        "evidence": evidence,
    }  # fmt: skip


def as_run(row: dict[str, Any]) -> Run:
    """Return the run of a row."""
    return Run("ok", score=row["score"], work=row["tokens"], steps=row["steps"],
               evidence=row["evidence"])  # fmt: skip


def measure(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Train what the log lacks; return all rows."""
    budget = Budget.parse(options.budget)
    seeds = tuple(range(FIRST_SEED, FIRST_SEED + options.seeds))
    log = Path(options.log) if options.log else None
    rows = list(map(json.loads, log.open())) if log and log.exists() else []
    source = (ROOT / "train.py").read_text()
    change = averaged if options.average else str
    edits = {name: scaled(source, *edit) for name, edit in {**LITERAL, **STRUCTURAL}.items()}
    edits = {name: text for name, text in edits.items() if options.only in name}
    if options.quick:
        edits = dict(list(edits.items())[4:7])

    def missing(name: str) -> bool:
        return not any(row["name"] == name for row in rows)

    def finish(pool: ProcessPoolExecutor, jobs: list[Job]) -> None:
        for found in pool.map(train_all, jobs):
            rows.extend(found)
            if log:
                with log.open("a") as file:
                    file.writelines(json.dumps(one) + "\n" for one in found)

    with ProcessPoolExecutor(options.jobs) as pool:
        names = [name for name in ("baseline", "baseline again") if missing(name)]
        finish(pool, [Job(name, change(source), seeds, budget) for name in names])
        baseline = tuple(as_run(row) for row in rows if row["name"].startswith("baseline"))
        finish(
            pool,
            [Job(name, change(text), seeds, budget, baseline)
             for name, text in edits.items() if missing(name)],
        )  # fmt: skip
    return rows


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Print a line per edit; return the figures."""
    scores: dict[str, dict[int, float]] = {}
    for one in rows:
        scores.setdefault(one["name"], {})[one["seed"]] = one["score"]
    base = scores.pop("baseline")
    pooled: dict[str, list[float]] = {}
    effects = {}
    print(f"{'edit':28}{'mean change':>13}{'± se':>9}{'sd of a pair':>14}{'tokens':>9}")
    for name, found in scores.items():
        kind = "literal" if name in LITERAL else "structural" if name in STRUCTURAL else "identical"
        changes = [score - base[seed] for seed, score in found.items()]
        sd = statistics.stdev(changes)
        pooled.setdefault(kind, []).append(sd)
        effects[name] = {"mean": fmean(changes), "sd": sd}
        tokens = fmean(one["tokens"] for one in rows if one["name"] == name)
        error = sd / math.sqrt(len(changes))
        mean = fmean(changes)
        print(f"{name:28}{mean:>+13.4f}{error:>9.4f}{sd:>14.5f}{tokens:>9.0f}")
    return {
        "pair_sd": {kind: math.sqrt(fmean(sd**2 for sd in sds)) for kind, sds in pooled.items()},
        "tokens_sd_percent": scatter(rows, lambda one: one["tokens"]),
        "cost_sd_percent": scatter(rows, lambda one: one["evidence"]["clock"]["measured_cost"]),
        "planned_share": fmean(one["evidence"]["clock"]["planned"] for one in rows),
        "seed_sd": statistics.stdev(base.values()),
        "effects": effects,
        "seeds": len(base),
    }


def scatter(rows: list[dict[str, Any]], figure: Any) -> float:
    """Return the scatter of a figure within programs, in per cent of its mean; pooled."""
    groups: dict[str, list[float]] = {}
    for one in rows:
        groups.setdefault(one["name"].removesuffix(" again"), []).append(figure(one))
    return 100 * math.sqrt(
        fmean((statistics.stdev(g) / fmean(g)) ** 2 for g in groups.values())
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=8)
    parser.add_argument("--jobs", type=int, default=2, help="trainings side by side")
    parser.add_argument("--budget", default="equal:600ktok")
    parser.add_argument("--average", action="store_true", help="score the mean of the last weights")
    parser.add_argument("--only", default="", help="edits whose name holds this text")
    parser.add_argument("--log", help="JSONL of finished programs; continued if it exists")
    options = parser.parse_args()
    if options.quick:
        options.seeds, options.budget = 2, "equal:30ktok"
    figures = report(measure(options))
    print(json.dumps({"budget": options.budget, "average": options.average, **figures}))


if __name__ == "__main__":
    main()
