"""Measure the HTML report of long campaigns: size, time to write and time to open.

    python benchmarks/report.py [--quick]

Fills ledgers of made-up campaigns in a temporary folder, with curves, logs, diffs and hypotheses of
real size, renders each, and opens it in headless Chromium if that is installed. Prints a Markdown
table and, as its last line, one JSON object (sizes in MB, opening in seconds, null without
Chromium); exits 1 if a page is larger than its limit.
"""

from __future__ import annotations

import argparse
import gzip
import json
import random
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from pytest_autoresearch.core.proposal import Edit, Proposal, Usage
from pytest_autoresearch.core.records import CheckNote
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import html

LIMITS = {500: 2.5, 1000: 5.0}
"""Attempts to the largest size of their page, in MB."""

CURVE_POINTS, LOG_CHARS = 580, 1500
REASON = (
    "1.970979 is not better than 1.956699: champion 1.972077 on the same 2 seeds, and a margin of "
    "0.015378 for noise (sigma 0.006242, 11 degrees of freedom)"
)
CHECKS = ("parses", "stays_small", "changes_something", "advisory_scan", "smoke")


def fill(ledger: Ledger, attempts: int, seed: int = 1) -> None:
    """Write a campaign: a tenth of its attempts crash, some are refused, a few are kept."""
    chance = random.Random(seed)
    ledger.set_meta(
        "campaign",
        {
            "base_commit": "a" * 40, "budget": "equal:600ktok", "calibrate": 3, "seed": seed,
            "metric": {"name": "val_bpb", "direction": "min", "unit": "bits/byte"},
            "files": ["train.py"], "started": time.time(),
        },
    )  # fmt: skip
    session = ledger.begin_session(driver="benchmark")
    best = 1.9700
    for number in (1, 2, 3):
        attempt = _start(ledger, session, "baseline", number)
        _train(ledger, attempt, chance, number, best, "calibrate")
        ledger.finish_attempt(attempt, verdict="baseline", score=best, n=1)
    champion = 1
    ledger.promote(0, champion, "a" * 40, {1: best, 2: best, 3: best})
    for number in range(1, attempts - 2):
        attempt = _start(ledger, session, "mutation", number)
        ledger.save_proposal(attempt, _proposal(chance, number), champion)
        ledger.add_check_notes(attempt, [CheckNote(name, True, "", 0.01) for name in CHECKS])
        ledger.claim_fingerprint(attempt, f"{number:064x}")
        fate = chance.random()
        row = {"champion_before": champion, "lines_added": 2, "lines_removed": 1}
        if fate < 0.04:
            ledger.finish_attempt(attempt, verdict="duplicate", reason="same code as before", **row)
        elif fate < 0.12:
            _train(ledger, attempt, chance, 1, None, "first")
            ledger.finish_attempt(attempt, verdict="crash", reason="RuntimeError: shape", **row)
        else:
            gain = chance.gauss(-0.004, 0.004)
            for seed_ in range(1, 4 if gain > 0 else 2):
                _train(ledger, attempt, chance, seed_, best - gain, "first")
            row |= {"score": best - gain, "gain": gain, "gain_sigma": gain / 0.002, "n": 1}
            row |= {"commit": f"{attempt:040x}", "bar": best - 0.006}
            if gain > 0.006:
                best, champion = best - gain, attempt
                version = len(ledger.champions())
                ledger.promote(
                    version, attempt, f"{attempt:040x}", {1: best}, {"verdict": "keep", **row}
                )
            else:
                ledger.finish_attempt(attempt, verdict="discard", reason=REASON, **row)
    ledger.end_session(session, 0)


def _start(ledger: Ledger, session: int, kind: str, number: int) -> int:
    name = f"{kind}-{number:04d}"
    return ledger.start_attempt(
        session_id=session, worker="main", name=name, kind=kind, number=number
    ).id


def _proposal(chance: random.Random, number: int) -> Proposal:
    value = round(chance.uniform(0.001, 0.1), 4)
    search = "".join(f"    old_line_{i} = self.block(x, {value})\n" for i in range(6))
    edit = Edit("train.py", search, search.replace("block", f"block_{number}"))
    return Proposal(
        f"matrix rate {value} with <b>warmup</b> & decay",
        (edit,),
        hypothesis="A lower rate for the matrices should cost less in the last tenth. " * 4,
        proposer="gp" if number % 4 else "claude",
        usage=Usage("claude", 9000, 0, 0, 700, 1, 0.02, 12.0),
    )


def _train(
    ledger: Ledger,
    attempt: int,
    chance: random.Random,
    seed: int,
    score: float | None,
    purpose: str,
) -> None:
    run = ledger.start_run(
        attempt, seed=seed, purpose=purpose, device="CPU", concurrency=1, budget="equal:600ktok"
    )
    curve = tuple(
        (i / CURVE_POINTS, 3.3 + 3.6 * (1 - i / CURVE_POINTS) ** 6 + chance.gauss(0, 0.1))
        for i in range(CURVE_POINTS)
    )
    log = "".join(f"step {i:05d} loss {value:.4f}\n" for i, (_, value) in enumerate(curve))
    ledger.finish_run(
        run,
        Run(
            status="ok" if score is not None else "crash",
            score=score,
            score_kind="trusted",
            train_seconds=22.8,
            total_seconds=26.1,
            steps=569,
            parameters=294_980,
            peak_memory_bytes=588_000_000,
            curve=curve,
            log_tail=log[-LOG_CHARS:],
        ),
    )


def open_seconds(page: Path, tries: int) -> float | None:
    """Measure the seconds in which Chromium starts, loads, draws and saves a picture of `page`.

    Returns:
        The least of `tries`, since other load only adds to it; None without Chromium.
    """
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        return None
    seconds = []
    with tempfile.TemporaryDirectory() as profile:
        command = [
            browser, "--headless=new", "--no-sandbox", "--disable-gpu", "--window-size=1280,900",
            f"--user-data-dir={profile}", f"--screenshot={profile}/page.png",
        ]  # fmt: skip
        for _ in range(tries):
            started = time.perf_counter()
            subprocess.run([*command, page.as_uri()], check=True, capture_output=True, timeout=120)
            seconds.append(time.perf_counter() - started)
    return min(seconds)


def measure(folder: Path, n: int, nothing: float | None, tries: int) -> dict[str, float | None]:
    """Fill a ledger with `n` attempts, render and open its page; print a row of the table."""
    with tempfile.TemporaryDirectory() as root:
        ledger = Ledger.open(Path(root), f"campaign-{n}")
        fill(ledger, n)
        started = time.perf_counter()
        attempts, champions, facts = ledger.attempts(), ledger.champions(), html.gather(ledger)
        read = time.perf_counter()
        page = folder / f"report-{n}.html"
        html.write(page, attempts, champions, facts, live=False)
        written = time.perf_counter()
        ledger.close()
    whole = open_seconds(page, tries)
    opening = None if whole is None or nothing is None else max(0.0, whole - nothing)
    shown = "no Chromium"
    if opening is not None:
        shown = f"{opening:.2f} s (with the browser's start {whole:.2f} s)"
    size = page.stat().st_size
    print(
        f"| {len(attempts)} | {size:,} | {len(gzip.compress(page.read_bytes())):,} "
        f"| {read - started:.2f} s | {written - read:.2f} s | {shown} |",
        flush=True,
    )
    return {f"size_mb_{n}": round(size / 1e6, 3), f"open_s_{n}": opening and round(opening, 3)}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--attempts", type=int, nargs="+", default=[100, 500, 1000])
    parser.add_argument("--quick", action="store_true", help="only 1,000 attempts, opened once")
    parser.add_argument("--keep", type=Path, help="leave the pages in this folder")
    options = parser.parse_args()
    tries = 1 if options.quick else 3
    figures: dict[str, float | None] = {}
    print("| attempts | bytes | gzipped | read ledger | render and write | open |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as temporary:
        folder = options.keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        blank = Path(temporary) / "blank.html"
        blank.write_text("<!doctype html><title>blank</title>")
        nothing = open_seconds(blank, tries + 1)
        for n in [1000] if options.quick else options.attempts:
            figures |= measure(folder, n, nothing, tries)
    print(json.dumps(figures))
    sizes = {n: figures.get(f"size_mb_{n}") or 0.0 for n in LIMITS}
    return int(any(size > LIMITS[n] for n, size in sizes.items()))


if __name__ == "__main__":
    sys.exit(main())
