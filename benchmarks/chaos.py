"""Break sessions in every way that a night can break, and count what is lost.

    python benchmarks/chaos.py [--quick] [--seed N]

Runs a command experiment of milliseconds through the real plugin, ledger and git. In each round a
session meets one fault at a random moment; the next session must go on from there:

* kill: SIGKILL, SIGTERM or SIGINT to the driver, its group, or a worker of ``-n 2``
* gc: ``git gc --prune=now`` in a loop during the session
* power: everything is killed, and the objects that git wrote last are empty afterwards
* host: a killed session of another host name (needs root)
* disk: the file system is full for a while (needs root)

Prints one line a round and, as its last line, one JSON object: ``lost`` attempts that had finished,
sessions that ``hung``, ``orphans`` that outlived their session by 20 s, and ``disagreements``
between ledger, refs, junit and results.tsv after a session without a fault. The goal is 0 for each.
"""

from __future__ import annotations

import argparse
import contextlib
import csv
import ctypes
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from command_project import git, make_project

from pytest_autoresearch.ledger.store import Ledger

LEVELS = range(800, 2800)
ATTEMPTS = 3
HUNG_S, ORPHANS_S = 180.0, 20.0
ROUNDS = {"kill": 100, "gc": 5, "power": 10, "host": 5, "disk": 10}
QUICK_ROUNDS = {"kill": 4, "gc": 1, "power": 1, "host": 1, "disk": 1}
DISK_MB = 160
_PR_SET_CHILD_SUBREAPER = 36


def descendants() -> set[int]:
    """Return every process that this one or its dead children started and that still runs."""
    found: set[int] = set()
    new = {os.getpid()}
    while new:
        children = set()
        for pid in new:
            with contextlib.suppress(OSError):
                text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
                children |= set(map(int, text.split()))
        new = children - found
        found |= new
    return found


class Chaos:
    """Rounds of faults in one project.

    Attributes:
        counts: What went wrong so far.
    """

    def __init__(self, folder: Path, rng: random.Random) -> None:
        self.folder = folder
        self.rng = rng
        self.counts = Counter(lost=0, hung=0, orphans=0, disagreements=0)
        self._finished: dict[str, tuple[str, float | None]] = {}

    def start(self, *options: str, prefix: tuple[str, ...] = ()) -> subprocess.Popen[bytes]:
        """Start a session in a process group of its own."""
        command = [
            *prefix, sys.executable, "-m", "pytest", "--autoresearch", f"--iterations={ATTEMPTS}",
            "-q", "--autoresearch-proposer=replay:ideas", "--autoresearch-confirm=0",
            "--junitxml=log.xml", "-p", "no:cacheprovider", *options,
        ]  # fmt: skip
        log = (self.folder / ".autoresearch-chaos.xml").open("wb")
        with log:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )

    def wait(self, process: subprocess.Popen[bytes]) -> int | None:
        """Return the exit code; None, and kill it, if it hangs."""
        try:
            return process.wait(HUNG_S)
        except subprocess.TimeoutExpired:
            self.counts["hung"] += 1
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            return None

    def reap(self) -> None:
        """Count what still runs a while after its session, and end it."""
        deadline = time.monotonic() + ORPHANS_S
        while descendants() and time.monotonic() < deadline:
            with contextlib.suppress(ChildProcessError):
                os.waitpid(-1, os.WNOHANG)
            time.sleep(0.1)
        left = descendants()
        self.counts["orphans"] += len(left)
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def look(self) -> None:
        """Compare the finished attempts with those of the last look."""
        if not (self.folder / ".autoresearch/main/ledger.sqlite").exists():
            return
        now = {
            attempt.name: (attempt.verdict, attempt.score)
            for attempt in Ledger.open(self.folder, "main").attempts()
            if attempt.state == "done"
        }
        self.counts["lost"] += sum(now.get(name) != was for name, was in self._finished.items())
        self._finished = now

    def resume(self) -> str:
        """Run a session without a fault, and compare all that it wrote."""
        before = len(self._finished)
        process = self.start()
        code = self.wait(process)
        self.reap()
        self.look()
        problems = list(self.problems()) if code == 0 else [f"exit code {code}"]
        if len(self._finished) < before + ATTEMPTS:
            problems.append(f"{len(self._finished) - before} of {ATTEMPTS} attempts finished")
        self.counts["disagreements"] += len(problems)
        return "; ".join(problems)

    def problems(self) -> Iterator[str]:
        """Yield how ledger, refs, junit and results.tsv disagree."""
        ledger = Ledger.open(self.folder, "main")
        attempts = [a for a in ledger.attempts() if a.state == "done" and a.kind != "baseline"]
        commits = {a.name: a.commit for a in attempts if a.commit}
        prefix = "refs/autoresearch/main/"
        lines = git(self.folder, "for-each-ref", "--format=%(refname) %(objectname)", prefix)
        refs = dict(line.removeprefix(prefix).split() for line in lines.splitlines())
        refs = {name: commit for name, commit in refs.items() if name.startswith("mutation-")}
        if refs != commits:
            yield f"refs and ledger differ in {len(set(refs.items()) ^ set(commits.items()))}"
        missing = subprocess.run(
            ["git", "cat-file", "--batch-check"], cwd=self.folder, text=True,
            input="\n".join(commits.values()), capture_output=True, check=True,
        ).stdout.count(" missing")  # fmt: skip
        if missing:
            yield f"{missing} commits are missing"
        champion = ledger.champion()
        tip = git(self.folder, "rev-parse", "refs/heads/autoresearch/main").strip()
        if champion is not None and tip != champion.commit:
            yield "the branch is not the champion"
        names = {a.name for a in attempts}
        cases = {c.get("name") for c in ElementTree.parse(self.folder / "log.xml").iter("testcase")}
        if not names <= cases:
            yield f"junit lacks {len(names - cases)} attempts"
        with (self.folder / "results.tsv").open() as table:
            rows = sum(1 for _ in csv.reader(table, delimiter="\t")) - 1
        if rows < len(names):
            yield f"results.tsv has {rows} rows for {len(names)} attempts"
        if git(self.folder, "status", "--porcelain").strip():
            yield "the working tree changed"

    # faults

    def kill(self) -> str:
        """Send a signal at a random moment."""
        workers = self.rng.random() < 0.3
        process = self.start(*(("-n", "2") if workers else ()))
        time.sleep(self.rng.uniform(0.3, 5.0))
        how = self.rng.choice(["driver", "group", "worker", "TERM", "INT"])
        with contextlib.suppress(ProcessLookupError):
            if how == "group":
                os.killpg(process.pid, signal.SIGKILL)
            elif how == "worker":
                chosen = self.rng.choice(sorted(descendants()) or [process.pid])
                os.kill(chosen, signal.SIGKILL)
            else:
                number = getattr(signal, f"SIG{how}", signal.SIGKILL)
                os.kill(process.pid, number)
        self.wait(process)
        return how + (" with workers" if workers else "")

    def gc(self) -> str:
        """Prune unreachable objects all the time."""
        process = self.start()
        runs = 0
        deadline = time.monotonic() + HUNG_S
        while process.poll() is None and time.monotonic() < deadline:
            subprocess.run(
                ["git", "gc", "--prune=now", "-q"], cwd=self.folder, stderr=subprocess.DEVNULL
            )
            runs += 1
        self.wait(process)
        return f"{runs} times"

    def power(self) -> str:
        """Kill everything and empty the objects that git wrote last."""
        process = self.start()
        time.sleep(self.rng.uniform(1.5, 5.0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self.wait(process)
        self.reap()
        objects = [p for p in (self.folder / ".git/objects").glob("??/*") if p.is_file()]
        newest = sorted(objects, key=lambda path: path.stat().st_mtime)[-3:]
        for path in newest:
            path.chmod(0o644)
            path.write_bytes(b"")
        return f"{len(newest)} objects"

    def host(self) -> str:
        """Kill a session of another host name."""
        process = self.start(
            prefix=("unshare", "--uts", "sh", "-c", 'hostname other; exec "$@"', "-")
        )
        time.sleep(self.rng.uniform(1.0, 4.0))
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        self.wait(process)
        return "killed"

    def disk(self) -> str:
        """Fill the file system for a while."""
        process = self.start()
        time.sleep(self.rng.uniform(0.3, 5.0))
        filler = self.folder / ".autoresearch-fill.xml"
        with contextlib.suppress(OSError), filler.open("wb", buffering=0) as file:
            while file.write(bytes(1 << 16)):
                pass
        time.sleep(self.rng.uniform(0.5, 3.0))
        filler.unlink()
        self.wait(process)
        return "full"

    def round(self, number: int, fault: Callable[[], str]) -> None:
        """Run one fault and the session after it; print a line."""
        what = fault()
        self.reap()
        self.look()
        problems = self.resume()
        print(f"{number:3d} {fault.__name__:6} {what:24} {problems or 'ok'}", flush=True)


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={DISK_MB}m", "chaos", str(folder)], check=True
    )
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="a few rounds of each fault")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=tuple(ROUNDS), help="one kind of fault")
    options = parser.parse_args()
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    rng = random.Random(options.seed)
    total: Counter[str] = Counter(lost=0, hung=0, orphans=0, disagreements=0)
    rounds = {}
    for name, count in (QUICK_ROUNDS if options.quick else ROUNDS).items():
        if options.only not in (None, name) or (name in ("host", "disk") and os.getuid() != 0):
            print(f"skipped: {name}")
            continue
        rounds[name] = count
        with tempfile.TemporaryDirectory() as temporary, contextlib.ExitStack() as undo:
            folder = Path(temporary) / "project"
            folder.mkdir()
            if name == "disk":
                undo.enter_context(small_disk(folder))
            make_project(folder, (n / 1000 for n in rng.sample(LEVELS, len(LEVELS))), 0.1)
            chaos = Chaos(folder, rng)
            print(f"    {name:6} {'a first session':24} {chaos.resume() or 'ok'}", flush=True)
            for number in range(1, count + 1):
                chaos.round(number, getattr(chaos, name))
        total.update(chaos.counts)
    print(json.dumps({"rounds": rounds, **total}))


if __name__ == "__main__":
    main()
