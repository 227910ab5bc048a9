"""Verdicts against known truth: a real campaign of mutations that help, hurt and do nothing.

    python benchmarks/known.py [--quick] [--seeds 5]

Runs a replayed campaign of the shipped experiment in a scratch clone; then trains every mutation
and the champion it was judged against on seeds that the campaign never used, in pairs, and prints
the verdict beside the gain measured there. Needs the data of ``python prepare.py``. About 50 runs
of 30 seconds; ``--quick`` has a tenth of the budget and only checks that it works.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from pytest_autoresearch.campaign.attempt import WorkingAttempt
from pytest_autoresearch.campaign.loop import Campaign
from pytest_autoresearch.campaign.open import open_campaign
from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.core.run import Purpose
from pytest_autoresearch.source.blocks import format_blocks
from pytest_autoresearch.source.edits import edits_between

ROOT = Path(__file__).resolve().parent.parent
MUTATIONS = {
    "halve the MLP": ("MLP_RATIO = 4 if CUDA else 2", "MLP_RATIO = 4 if CUDA else 1"),
    "nothing: other initial weights": ("_seed()} {name}", "_seed()} {name} 1"),
    "halve the head's width": ("128 if CUDA else 32  # per", "128 if CUDA else 16  # per"),
    "double the matrix rate": ("0.04 if CUDA else 0.01", "0.04 if CUDA else 0.02"),
    "nothing: initial weights that differ again": ("_seed()} {name}", "_seed()} {name} 2"),
    "no warm-down": ("WARMDOWN_RATIO = 0.4", "WARMDOWN_RATIO = 0.05"),
    "embedding rate to a quarter": ("0.6 if CUDA else 0.1", "0.6 if CUDA else 0.025"),
    "one block less": ("DEPTH = 8 if CUDA else 2", "DEPTH = 8 if CUDA else 1"),
    "nothing: a rotary base of 10,010": ("ROPE_BASE = 10000", "ROPE_BASE = 10010"),
}


def scratch(folder: Path) -> Path:
    """Clone this repository, with the prepared data and the recorded proposals."""
    project = folder / "project"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
    shutil.copytree(ROOT / ".autoresearch/data", project / ".autoresearch/data")
    ideas = project / ".autoresearch/ideas"
    ideas.mkdir()
    source = (project / "train.py").read_text()
    for number, (title, (search, replace)) in enumerate(MUTATIONS.items(), 1):
        assert source.count(search) == 1, title
        blocks = format_blocks(edits_between(source, source.replace(search, replace), "train.py"))
        (ideas / f"{number:02d}.txt").write_text(f"Title: {title}\n\n{blocks}")
    return project


def truth(campaign: Campaign, attempt: Attempt, seeds: range) -> list[float]:
    """Paired gains of an attempt over the champion it was judged against, on `seeds`."""
    assert attempt.champion_before is not None
    before = campaign.ledger.attempt(attempt.champion_before)
    gains = []
    for seed in seeds:
        old, new = train(campaign, before, seed), train(campaign, attempt, seed)
        if old is not None and new is not None:
            gains.append(campaign.experiment.metric.gain(new, old))
    return gains


def train(campaign: Campaign, attempt: Attempt, seed: int) -> float | None:
    """Score of an attempt's files on one seed; trained once."""
    for run in campaign.ledger.attempt(attempt.id).runs:
        if (run.purpose, run.seed) == (Purpose.VERIFY, seed):
            return run.score
    holder = WorkingAttempt(attempt, parent_commit=attempt.commit)
    files = campaign.runner.read(attempt.commit)
    return campaign.runner.run(holder, files, seed, Purpose.VERIFY).score


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", type=int, default=5, help="fresh pairs for the truth")
    options = parser.parse_args()
    seeds = range(7001, 7001 + (2 if options.quick else options.seeds))
    with tempfile.TemporaryDirectory() as folder:
        project = scratch(Path(folder))
        command = [
            sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-tag=known",
            "--autoresearch-proposer=replay:.autoresearch/ideas", "--autoresearch-confirm=0",
            f"--iterations={len(MUTATIONS)}", "-p", "no:cacheprovider",
        ]  # fmt: skip
        if options.quick:
            command.append("--autoresearch-budget=equal:60ktok")
        subprocess.run(command, cwd=project, check=True)
        with open_campaign(project, "known", "truth") as campaign:
            rows = report(campaign, seeds)
    print(json.dumps({"mutations": rows, "seeds": len(seeds)}))


def report(campaign: Campaign, seeds: range) -> list[dict[str, object]]:
    """Print one line per mutation as it is measured."""
    sigma = campaign.runner.noise().sigma
    print(f"sigma of one paired difference {sigma:.4f}; truth over {len(seeds)} fresh seeds")
    print(f"{'verdict':10}{'judged gain':>12}{'n':>3}{'true gain':>12}{'± se':>9}  mutation")
    rows: list[dict[str, object]] = []
    for attempt in campaign.ledger.attempts():
        if attempt.kind == "baseline" or not attempt.commit:
            continue
        gains = truth(campaign, attempt, seeds)
        mean = statistics.mean(gains) if gains else math.nan
        error = statistics.stdev(gains) / math.sqrt(len(gains)) if len(gains) > 1 else math.nan
        judged = f"{attempt.gain:+.4f}" if attempt.gain is not None else "-"
        print(
            f"{attempt.verdict or '':10}{judged:>12}{attempt.n:>3}{mean:>+12.4f}{error:>9.4f}"
            f"  {attempt.title}",
            flush=True,
        )
        rows.append(
            {
                "title": attempt.title,
                "verdict": attempt.verdict,
                "gain": attempt.gain,
                "true_gain": mean,
                "standard_error": error,
            }
        )
    return rows


if __name__ == "__main__":
    main()
