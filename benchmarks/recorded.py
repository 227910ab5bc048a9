r"""Recorded answers of a model over the wire: one attempt for each kind of answer, and its price.

    python benchmarks/recorded.py [--all] [--iterations N] [--budget 60ktok] [--model ID]

Starts a loopback server that speaks Anthropic's Messages API and answers with the proposals of
tests/recordings, written by hand; then runs, in a scratch clone of this repository,

    ANTHROPIC_API_KEY=x ANTHROPIC_BASE_URL=http://127.0.0.1:PORT \
        pytest --autoresearch --iterations 12

with real training, and compares what became of each attempt with what was recorded. ``--all`` gives
each recording an attempt: no control arm, no retests. Without prepared data, it is prepared first
(``python prepare.py``). Exits 1 if anything was lost, charged for faults of the provider, billed
differently from what was served, or judged differently from what was recorded.

This checks the plumbing and says nothing about the quality of research: no model was involved. The
server counts tokens as bytes divided by three and assumes 3,000 reasoning tokens an answer.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "tests"))

from support.wire.recorded import Bill, Recorded, dollars, outcome, read  # noqa: E402

from pytest_autoresearch.core.money import prices_version  # noqa: E402
from pytest_autoresearch.core.records import Attempt  # noqa: E402
from pytest_autoresearch.ledger.spend import CostBudget  # noqa: E402
from pytest_autoresearch.ledger.store import Ledger  # noqa: E402

DATA = ROOT / ".autoresearch/data/stdlib"
PRICED = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")
CAMPAIGN = "main"
"""A campaign is named after the branch."""


def scratch(folder: Path) -> Path:
    """Return a clone of this repository with the prepared data."""
    if not (DATA / "manifest.json").exists():
        subprocess.run([sys.executable, "prepare.py"], cwd=ROOT, check=True)
    project = folder / "project"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(project)], check=True)
    subprocess.run(["git", "checkout", "-qB", CAMPAIGN], cwd=project, check=True)
    # the recordings are for the file as it lies here, committed or not
    shutil.copy(ROOT / "train.py", project)
    identity = ["-c", "user.name=b", "-c", "user.email=b@x"]
    subprocess.run(
        ["git", *identity, "commit", "-qam", "start", "--allow-empty"], cwd=project, check=True
    )
    shutil.copytree(DATA, project / ".autoresearch/data/stdlib")
    return project


def research(project: Path, server: Recorded, options: argparse.Namespace) -> float:
    """Run the campaign; returns its wall seconds."""
    count = len(server.conversations) if options.all else options.iterations
    command = ["pytest", "--autoresearch", "--iterations", str(count)]
    command += [f"--autoresearch-model={options.model}"] if options.model else []
    command += [f"--autoresearch-budget={options.budget}"] if options.budget != "default" else []
    if options.all:
        command += ["--autoresearch-control=0", "--autoresearch-parents=champion"]
    address = {"ANTHROPIC_API_KEY": "x", "ANTHROPIC_BASE_URL": server.url}
    print(" ".join([*(f"{name}={value}" for name, value in address.items()), *command]), flush=True)
    clean = {n: v for n, v in os.environ.items() if not n.startswith("ANTHROPIC_")}
    began = time.monotonic()
    subprocess.run([sys.executable, "-m", *command], cwd=project, env=clean | address, check=True)
    return time.monotonic() - began


def table(server: Recorded, attempts: list[Attempt]) -> list[dict[str, object]]:
    """Print a line for each attempt; return them with what was recorded."""
    recorded = {one.name: one.outcome for one in server.conversations}
    asked = iter(server.asked)
    rows: list[dict[str, object]] = []
    print(f"{'attempt':14}{'recording':27}{'became':11}{'verdict':11}{'requests':>8}{'cost':>10}")
    for attempt in attempts:
        name = (
            next(asked, "") if attempt.proposer == "anthropic" or attempt.state == "infra" else ""
        )
        became, cost = outcome(attempt.verdict, attempt.reason), attempt.usage.cost_usd or 0.0
        fits = not name or became == recorded[name]
        if name and recorded[name] == "duplicate" and became == "trained":
            fits = True  # the policy chose another parent, so it is another program
        print(
            f"{attempt.name:14}{name or f'({attempt.proposer})':27}{became + ' !' * (not fits):11}"
            f"{attempt.verdict or attempt.state:11}{attempt.usage.requests:8}"
            f"{f'${cost:.4f}' if attempt.usage.requests else '':>10}"
        )
        rows.append(
            {
                "attempt": attempt.name,
                "recording": name,
                "verdict": attempt.verdict,
                "dollars": cost,
                "as_recorded": fits,
            }
        )
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--iterations", type=int, default=12, metavar="N")
    parser.add_argument("--all", action="store_true", help="every recording")
    parser.add_argument("--budget", default="60ktok", help="of a trial; default: the shipped one")
    parser.add_argument("--model", help="the model to ask for, and to pay")
    options = parser.parse_args()
    server = Recorded(read())
    try:
        with tempfile.TemporaryDirectory() as folder:
            project = scratch(Path(folder))
            seconds = research(project, server, options)
            ledger = Ledger.open(project, CAMPAIGN)
            attempts = [attempt for attempt in ledger.attempts() if attempt.kind == "mutation"]
            spent = CostBudget(ledger.path).spent()
            ledger.close()
    finally:
        server.close()
    rows = table(server, attempts)
    counts = {
        "attempts": len(attempts),
        "asked": len(server.asked),
        "lost": len(server.asked) - sum(bool(row["recording"]) for row in rows)
        + sum(attempt.verdict is None for attempt in attempts),
        "infra": sum(attempt.state == "infra" for attempt in attempts),
        "repairs": sum(max(0, attempt.usage.requests - 1) for attempt in attempts),
        "faults": server.faults,
    }  # fmt: skip
    owed, unknown = (sum(map(dollars, bills)) for bills in (server.bills, server.unknown))
    written = sum(attempt.usage.cost_usd or 0.0 for attempt in attempts)
    answers = [bill.usage for bill in server.bills]
    asked, model = len(server.asked), server.bills[0].model
    mean = {name: sum(used[name] for used in answers) / asked for name in answers[0]}
    cost = {
        name: sum(dollars(Bill(b.conversation, name, b.usage)) for b in server.bills) / asked
        for name in dict.fromkeys((model, *PRICED))
    }
    print(f"\n{asked} attempts asked {model}; mean tokens and cost of one:")
    print(", ".join(f"{name.removesuffix('_tokens')} {mean[name]:,.0f}" for name in mean))
    for name, price in cost.items():
        print(f"{name:20} ${price:.4f} an attempt, by {prices_version()}")
    print(f"{seconds:.0f} s in all, baselines and confirmation runs included")
    print(f"served ${owed:.4f}, in the ledger ${spent:.4f}, sum of the attempts ${written:.4f}")
    if unknown:
        print(f"at most ${unknown:.4f} of it is set aside for answers that never began")
    as_recorded = all(row["as_recorded"] for row in rows)
    line = counts | {
        "outcomes_as_recorded": as_recorded,
        "owed_usd": round(owed, 6),
        "unknown_usd": round(unknown, 6),
        "spent_usd": round(spent, 6),
        "attempts_usd": round(written, 6),
        "usd_per_attempt": {name: round(price, 6) for name, price in cost.items()},
        "tokens_per_attempt": {name: round(value) for name, value in mean.items()},
        "model": model,
        "seconds": round(seconds, 1),
        "rows": rows,
    }
    print(json.dumps(line))
    cents = abs(spent - written) < 0.005 and owed - 0.005 < spent < owed + unknown + 0.005
    if counts["lost"] or counts["infra"] or not (cents and as_recorded):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
