"""Measure what an attempt costs besides its training as a campaign grows.

    python benchmarks/scale.py [--quick]

Runs a command experiment of milliseconds through the real ledger, git, junit, results.tsv and
report page, in campaigns of 100, 1,000 and 10,000 attempts (--quick: 100 and 1,000). Earlier
attempts are copies of a real one. An attempt's overhead is the difference between a long and a
short session in CPU seconds of all processes, divided by the number of further attempts, less the
program itself.
Prints a table and, as its last line, one JSON object: ``overhead_ratio_1000`` or
``overhead_ratio_10000`` (against 100 attempts), ``overhead_s`` and ``driver_memory_mb``.
"""

from __future__ import annotations

import argparse
import json
import os
import sqlite3
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from command_project import make_project

COPY = """
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :more)
INSERT INTO proposals SELECT p.id + i, p.state, :first + i, p.parent, p.body, p.created
    FROM n, proposals p WHERE p.id = (SELECT max(id) FROM proposals);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :more)
INSERT INTO runs SELECT r.id + i, :first + i, r.seed, r.purpose, r.state, r.device, r.concurrency,
    r.budget, r.started, r.finished, r.score, json_set(r.result, '$.log_tail', :log)
    FROM n, runs r WHERE r.id = (SELECT max(id) FROM runs);
WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < :more)
INSERT INTO attempts SELECT a.id + i, printf('mutation-%04d', a.number + i), a.kind, a.number + i,
    a.session_id, a.worker, a.state, a.started, a.finished, a.verdict, a.reason,
    (SELECT max(id) FROM proposals) - :more + i, a.parent, a.champion_before, NULL,
    printf('%064x', i), a.bar, a.score, a.n, a.gain, a.gain_sigma, 1, 0, a."commit", a.check_notes,
    a.commit_object
    FROM n, attempts a WHERE a.id = :first;
"""
SHORT, LONG = 3, 23


def cpu_seconds(command: list[str], folder: Path) -> tuple[float, float]:
    """Run a command; return CPU seconds of it and its children, and its peak memory in MB."""
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with {process.returncode}")
    return usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024


def session(folder: Path, attempts: int) -> tuple[float, float]:
    command = [
        sys.executable, "-m", "pytest", "--autoresearch", f"--iterations={attempts}", "-q",
        "--autoresearch-proposer=replay:ideas", "--autoresearch-confirm=0", "--junitxml=log.xml",
        "--autoresearch-parents=champion", "-p", "no:cacheprovider",
    ]  # fmt: skip
    return cpu_seconds(command, folder)


def grow(folder: Path, size: int) -> None:
    """Add copies of the last attempt until the campaign has `size` attempts."""
    with sqlite3.connect(folder / ".autoresearch/main/ledger.sqlite") as db:
        [(count, first)] = db.execute("SELECT count(*), max(id) FROM attempts").fetchall()
        values = {"more": size - count, "first": first, "log": "step 1 loss 2.5\n" * 100}
        for statement in COPY.split(";\n"):
            if statement.strip():
                db.execute(statement, values)


def measure(size: int) -> tuple[float, float]:
    """Return CPU seconds of overhead for an attempt at `size` attempts, and memory in MB."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_project(folder, (1.1 + number / 1000 for number in range(4 * LONG)))
        session(folder, SHORT)
        grow(folder, size)
        program = statistics.median(
            cpu_seconds([sys.executable, "train.py"], folder)[0] for _ in range(5)
        )
        short, _ = session(folder, SHORT)
        long, memory = session(folder, LONG)
        return (long - short) / (LONG - SHORT) - program, memory


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    quick = parser.parse_args().quick
    print("| attempts | overhead, CPU s an attempt | driver, MB |\n|---|---|---|")
    overhead, memory = {}, {}
    for size in (100, 1000) if quick else (100, 1000, 10_000):
        overhead[size], memory[size] = measure(size)
        print(f"| {size:,} | {overhead[size]:.3f} | {memory[size]:.0f} |", flush=True)
    largest = max(overhead)
    print(json.dumps({
        f"overhead_ratio_{largest}": round(overhead[largest] / overhead[100], 3),
        "overhead_s": {str(size): round(value, 4) for size, value in overhead.items()},
        "driver_memory_mb": round(memory[largest]),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
