"""Confirmed gain per device hour of the proposers without a key, on the shipped experiment.

    python benchmarks/research.py [--quick] [--arms NAME ...] [--attempts N] [--seed S] [--jobs J]

Each arm is a real campaign through pytest's own command in a clone of this repository: the same
number of attempts, the same baseline and seeds, then training of the first and the last champion on
fresh seeds. `recorded` replays the proposals of a language model (--recorded DIR). Prints a table
and, as its last line, one JSON object: ``confirmed_gain`` by arm, and ``arms`` with gain, low,
high, keeps, attempts and device_hours of each.

The clones lie in --folder and the results of finished arms in its research.jsonl, so the same
command continues after an interruption; another commit, budget or seed starts again. 40 attempts of
the default budget took `gp` half an hour on a busy core.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from functools import partial
from pathlib import Path

from pytest_autoresearch.core.run import Purpose
from pytest_autoresearch.ledger.store import Ledger

ROOT = Path(__file__).resolve().parent.parent
ARMS = ("gp", "ratchet", "random", "recorded")
RESULTS = "research.jsonl"
AFTER = (Purpose.CONFIRM, Purpose.HOLDOUT)
"""Runs that are not part of an arm's search."""


def git(folder: Path, *arguments: str) -> str:
    return subprocess.run(
        ["git", *arguments], cwd=folder, check=True, capture_output=True, text=True
    ).stdout.strip()


def clone(folder: Path) -> None:
    """Clone this repository with the prepared data, unless an earlier run did."""
    if (folder / ".autoresearch/data").exists():
        return
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["git", "clone", "-q", str(ROOT), str(folder)], check=True)
    shutil.copytree(ROOT / ".autoresearch/data/stdlib", folder / ".autoresearch/data/stdlib")


def attempts_in(project: Path, tag: str) -> int:
    if not (project / ".autoresearch" / tag / "ledger.sqlite").exists():
        return 0
    with closing(Ledger.open(project, tag)) as ledger:
        return sum(one.kind == "mutation" and one.state == "done" for one in ledger.attempts())


def research(options: argparse.Namespace, name: str, arm: str) -> dict[str, object]:
    """Run an arm's campaign to its end, and return its row."""
    project, tag = options.folder / f"{name}-{arm}", "research"
    clone(project)
    proposer = f"replay:{options.recorded.resolve()}" if arm == "recorded" else arm
    left = options.attempts - attempts_in(project, tag)
    command = [
        sys.executable, "-m", "pytest", "-p", "no:cacheprovider", "--autoresearch",
        f"--iterations={max(0, left)}", f"--autoresearch-tag={tag}",
        f"--autoresearch-proposer={proposer}", f"--autoresearch-seed={options.seed}",
        f"--autoresearch-confirm={options.confirm}", "--autoresearch-max-failures=0",
    ]  # fmt: skip
    command += [f"--autoresearch-budget={options.budget}"] if options.budget else []
    command += ["--autoresearch-calibrate=2"] if options.quick else []
    # the clone's own package, and no other one that a path names
    env = {n: v for n, v in os.environ.items() if not n.startswith(("ANTHROPIC_", "PYTHONPATH"))}
    began = time.monotonic()
    if left > 0:
        path = options.folder / f"{name}-{arm}.log"
        with path.open("a") as log:
            done = subprocess.run(command, cwd=project, env=env, stdout=log, stderr=log)
        if done.returncode:
            raise SystemExit(f"{arm}: pytest ended with exit code {done.returncode}; see {path}")
    found = row(project, tag) | {"wall_s": round(time.monotonic() - began, 1)}
    line = {"name": name, "planned": options.attempts, "arm": arm, "row": found}
    with (options.folder / RESULTS).open("a") as file:
        file.write(json.dumps(line) + "\n")
    return found


def row(project: Path, tag: str) -> dict[str, object]:
    """Return what a finished campaign found and what it cost."""
    with closing(Ledger.open(project, tag)) as ledger:
        attempts, found = ledger.attempts(), ledger.confirmation()
    mutations = [one for one in attempts if one.kind == "mutation" and one.state == "done"]
    seconds = sum(
        run.total_seconds for one in attempts for run in one.runs if run.purpose not in AFTER
    )
    gain = found.confirmed if found else None  # without a keep, nothing was gained
    return {
        "gain": round(gain.gain, 6) if gain else 0.0,
        "low": round(gain.low, 6) if gain else 0.0,
        "high": round(gain.high, 6) if gain else 0.0,
        "pairs": gain.n if gain else 0,
        "holdout": round(found.holdout.gain, 6) if found and found.holdout else 0.0,
        "kept": round(found.kept, 6) if found else 0.0,
        "keeps": sum(one.verdict == "keep" for one in mutations),
        "attempts": len(mutations),
        "device_hours": round(seconds / 3600, 4),
        "titles": [one.title for one in mutations if one.verdict == "keep"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="three attempts of a tiny budget")
    add("--arms", nargs="+", choices=ARMS, default=list(ARMS))
    add("--attempts", type=int, default=40, metavar="N")
    add("--budget", help="of a run; default: the shipped one")
    add("--confirm", type=int, default=6, metavar="N", help="fresh seeds")
    add("--seed", type=int, default=1, help="of the campaigns")
    add("--jobs", type=int, default=1, help="arms side by side")
    add("--recorded", type=Path, default=ROOT / "docs/sample/proposals", metavar="DIR")
    add("--folder", type=Path, default=ROOT / ".autoresearch/research", metavar="DIR")
    options = parser.parse_args()
    if options.quick:
        options.attempts, options.confirm = min(options.attempts, 3), min(options.confirm, 1)
        options.budget = options.budget or "equal:30ktok"
    if "recorded" in options.arms and not options.recorded.is_dir():
        parser.error(f"--recorded {options.recorded} is not a folder; give one with proposals")
    if not (ROOT / ".autoresearch/data/stdlib/manifest.json").exists():
        subprocess.run([sys.executable, "prepare.py"], cwd=ROOT, check=True)
    options.folder.mkdir(parents=True, exist_ok=True)
    name = f"{git(ROOT, 'rev-parse', '--short=10', 'HEAD')}-{options.seed}-{options.confirm}"
    name += f"-{options.budget.replace(':', '-')}" if options.budget else ""
    results = options.folder / RESULTS
    rows: dict[str, dict[str, object]] = {}
    for line in results.read_text().splitlines() if results.exists() else ():
        one = json.loads(line)
        if one["name"] == name and one["planned"] == options.attempts:
            rows[one["arm"]] = one["row"]
    todo = [arm for arm in options.arms if arm not in rows]
    with ThreadPoolExecutor(options.jobs) as pool:
        rows |= zip(todo, pool.map(partial(research, options, name), todo), strict=True)
    print(f"{'arm':10}{'confirmed gain, 95 %':>34}{'an hour':>10}{'keeps':>7}{'attempts':>10}"
          f"{'hours':>8}")  # fmt: skip
    for arm in options.arms:
        one = rows[arm]
        hour = one["gain"] / one["device_hours"] if one["device_hours"] else 0.0
        interval = f"{one['gain']:+.4f} [{one['low']:+.4f}, {one['high']:+.4f}]"
        print(f"{arm:10}{interval:>34}{hour:>+10.4f}{one['keeps']:>7}{one['attempts']:>10}"
              f"{one['device_hours']:>8.2f}")  # fmt: skip
    arms = {arm: rows[arm] for arm in options.arms}
    print(json.dumps({"confirmed_gain": {a: one["gain"] for a, one in arms.items()}, "arms": arms}))


if __name__ == "__main__":
    main()
