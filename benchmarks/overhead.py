"""Seconds of an attempt outside training, by cause: start-up, scoring, git, ledger, junit.

    python benchmarks/overhead.py [--quick]

Runs the shipped experiment's baseline and times the bookkeeping of an attempt around it. Needs the
data of ``python prepare.py``.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import tempfile
import time
from collections import defaultdict
from pathlib import Path

from pytest_autoresearch import Budget, Edit, Metric, Proposal
from pytest_autoresearch.core.run import Run, RunSpec
from pytest_autoresearch.forkserver.launch import Launcher
from pytest_autoresearch.ledger.git import Repository
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import junit
from pytest_autoresearch.training.run import execute

ROOT = Path(__file__).resolve().parent.parent


def runs(count: int, budget: Budget, folder: Path) -> list[Run]:
    files = {"train.py": (ROOT / "train.py").read_bytes()}
    spec = RunSpec(
        "t", files, "train.py", 1, budget, ROOT / ".autoresearch/data/stdlib", reference_files=files
    )
    with Launcher() as launcher:
        execute(spec, launcher, folder)  # starts the forkserver
        return [execute(spec, launcher, folder) for _ in range(count)]


def bookkeeping(folder: Path, result: Run, rounds: int) -> dict[str, float]:
    project = folder / "project"
    project.mkdir()
    shutil.copy(ROOT / "train.py", project)
    for command in (["init", "-q"], ["add", "-A"], ["commit", "-qm", "start"]):
        subprocess.run(
            ["git", "-c", "user.name=b", "-c", "user.email=b@x", *command], cwd=project, check=True
        )
    repository, ledger = Repository.open(project), Ledger.open(project, "t")
    session = ledger.begin_session(driver="b")
    causes: dict[str, list[float]] = defaultdict(list)
    text = (ROOT / "train.py").read_text()
    for number in range(rounds):
        began = time.perf_counter()
        attempt = ledger.start_attempt(
            session_id=session, worker="main", name=f"m-{number}", kind="mutation", number=number
        )
        edit = Edit("train.py", "DEPTH = 8", f"DEPTH = {number}")
        ledger.save_proposal(attempt.id, Proposal("t", (edit,)), None)
        ledger.claim_fingerprint(attempt.id, str(number))
        run = ledger.start_run(
            attempt.id, seed=1, purpose="first", device="cpu", concurrency=1, budget="b"
        )
        ledger.finish_run(run, result)
        ledger.finish_attempt(attempt.id, verdict="discard", score=1.0)
        causes["ledger"].append(time.perf_counter() - began)
        began = time.perf_counter()
        sha = repository.commit(
            repository.head(),
            {"train.py": f"# {number}\n{text}"},
            subject="s",
            body="",
            trailers={},
        )
        repository.project("t", sha, {f"m-{number}": sha})
        causes["git"].append(time.perf_counter() - began)
        began = time.perf_counter()
        junit.write(project / "log.xml", ledger.attempts(), Metric(), {})
        causes["junit"].append(time.perf_counter() - began)
    return {name: statistics.median(seconds) for name, seconds in causes.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    budget = Budget.parse("equal:20ktok" if quick else "equal:600ktok")
    count = 1 if quick else 3
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results = runs(count, budget, folder)
        books = bookkeeping(folder, results[0], 3 if quick else 10)
    for result in results:
        if result.status != "ok":
            raise SystemExit(f"the baseline has no score: {result.reason}")
    names = sorted({cause for result in results for cause in result.causes} - {"train"})
    by_cause = {n: statistics.median(r.causes.get(n, 0.0) for r in results) for n in names} | books
    train = statistics.median(result.causes["train"] for result in results)
    overhead = statistics.median(r.total_seconds - r.causes["train"] for r in results)
    overhead += sum(books.values())
    print(f"one attempt of {budget}, medians of {count}\n{'cause':14}{'seconds':>9}")
    for cause, seconds in [("train", train), *sorted(by_cause.items(), key=lambda i: -i[1])]:
        print(f"{cause:14}{seconds:9.3f}")
    fields = {
        "attempt_overhead_s": round(overhead, 3),
        "busy_fraction": round(train / (train + overhead), 4),
        "by_cause": {cause: round(seconds, 4) for cause, seconds in by_cause.items()},
    }
    print(json.dumps(fields))


if __name__ == "__main__":
    main()
