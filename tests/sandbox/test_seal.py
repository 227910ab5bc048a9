"""A sealed process can compute and answer, and change nothing that a later process can observe."""

from __future__ import annotations

import contextlib
import ctypes
import mmap
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from attacks.arena import Arena
from sandbox.test_seccomp import ALLOWED, describe, run

from pytest_autoresearch.forkserver.launch import Child
from pytest_autoresearch.sandbox import Policy, launch, syscalls
from pytest_autoresearch.sandbox.seal import COMPUTING, program
from pytest_autoresearch.scoring import CheatDetected, ScoringCrash
from pytest_autoresearch.scoring.process import Allowance, Scorer

pytest_plugins = ("attacks.fixtures",)

NOTIFIED = 0x7FC00000
CLONE_THREAD = 0x10000
PAGES = 256

PROBES = """
import ctypes, mmap, os, socket, subprocess, threading, time
from honest import build, train, logits as honest_logits
opened = os.open(__file__, os.O_RDONLY)
libc = ctypes.CDLL(None, use_errno=True)
PROBES = {
    "open": lambda: os.close(os.open(__file__, os.O_RDONLY)),
    "stat": lambda: os.stat(__file__),
    "list": lambda: os.listdir("/proc/self/fd"),
    "read": lambda: os.pread(opened, 1, 0),
    "fork": lambda: os.fork() or os._exit(0),
    "execute": lambda: subprocess.run(["/bin/true"]),
    "socket": lambda: socket.socketpair(),
    "limits": lambda: os.sched_setaffinity(0, os.sched_getaffinity(0)),
    "name": lambda: open("/proc/self/comm", "w").close(),
    "thread": lambda: threading.Thread(target=time.sleep, args=(0,)).start(),
    "memory": lambda: mmap.mmap(-1, 1 << 20).close(),
    "print": lambda: print(end="", flush=True),
}
def logits(model, x):
    if len(x) > 2:
        done = []
        for name, probe in PROBES.items():
            try:
                probe()
            except OSError:
                continue
            done.append(name)
        print("can:", *done, flush=True)
    return honest_logits(model, x)
"""

MAPS_A_FILE = """
import mmap, os
from honest import build, train, logits
with open(os.path.dirname(__file__) + "/text.bin", "rb") as file:
    pages = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
"""


@contextmanager
def scorer(arena: Arena, start: Callable[[], Child]) -> Iterator[tuple[Scorer, list[Child]]]:
    children: list[Child] = []

    def started() -> Child:
        children.append(start())
        return children[0]

    with Scorer(started, arena.dataset.vocab_size, Allowance(), secret=True) as process:
        yield process, children


def test_sealed_process_can_only_compute(arena: Arena) -> None:
    rows = arena.dataset.rows("train")[:16]
    start = arena.start({"train.py": PROBES.encode()}, "probes", capture=True)
    with scorer(arena, start) as (process, children):
        process.seal(rows, 16)
        losses = process.claims(rows, 16)
        before, after = [
            set(line.split()[1:])
            for line in children[0].log()[0].splitlines()
            if line.startswith("can:")
        ]
    assert np.isfinite(losses).all()
    assert {"open", "stat", "list", "read", "fork", "execute", "limits"} <= before
    assert after == {"thread", "memory", "print"}
    assert process.sandbox["seal"].startswith("ok")


def test_secret_text_needs_a_sealed_process(arena: Arena) -> None:
    rows = arena.dataset.rows("train")[:4]
    with (
        scorer(arena, arena.start({"train.py": b"from honest import *"}, "open")) as (process, _),
        pytest.raises(RuntimeError, match="seal the scoring process"),
    ):
        process.claims(rows, 4)


def test_files_mapped_before_the_seal_are_resident_after_it(arena: Arena) -> None:
    rows = arena.dataset.rows("train")[:4]
    start = arena.start({"train.py": MAPS_A_FILE.encode()}, "maps")
    path = arena.root / "scored" / "maps" / "text.bin"
    path.write_bytes(os.urandom(PAGES * mmap.PAGESIZE))
    evict(path)
    if resident(path):
        pytest.skip("the temporary folder keeps its files in memory")
    with scorer(arena, start) as (process, _):
        evict(path)
        assert resident(path) < PAGES
        process.seal(rows, 4)
        assert resident(path) == PAGES


PAGE_CALLS = """
import ctypes, mmap, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.mmap.restype = ctypes.c_void_p
fd = os.open(sys.argv[1], os.O_RDONLY)
size = 256 * mmap.PAGESIZE
address = ctypes.c_void_p(libc.mmap(None, ctypes.c_size_t(size), 1, 1, fd, ctypes.c_long(0)))
states = (ctypes.c_ubyte * 256)()
print(libc.mincore(address, ctypes.c_size_t(size), states), sum(states))
os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
libc.madvise(address, ctypes.c_size_t(size), 21)
try:
    print(os.preadv(fd, [bytearray(1)], 0, os.RWF_NOWAIT))
except OSError as error:
    print(error.strerror)
"""


def test_confined_process_can_neither_see_nor_evict_cached_pages(tmp_path: Path) -> None:
    path = tmp_path / "text.bin"
    path.write_bytes(os.urandom(PAGES * mmap.PAGESIZE))
    os.sync()
    policy = Policy(read=(str(path),), write=(str(tmp_path),), env={})
    command = [sys.executable, "-c", PAGE_CALLS, str(path)]
    process = launch(command, policy, "require", stdout=subprocess.PIPE, text=True)
    assert process.communicate()[0].splitlines() == ["-1 0", "Operation not supported"]
    assert resident(path) == PAGES


HIDES_A_FILE = """
import array, os, socket
from honest import build, train, logits
here, there = socket.socketpair()
file = os.open(__file__, os.O_RDONLY)
here.sendmsg([b"x"], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", [file]).tobytes())])
os.close(file)
"""


def test_file_that_is_hidden_in_a_socket_prevents_the_seal(arena: Arena) -> None:
    rows = arena.dataset.rows("train")[:4]
    start = arena.start({"train.py": HIDES_A_FILE.encode()}, "hides")
    with (
        scorer(arena, start) as (process, _),
        pytest.raises(CheatDetected, match="hides which files"),
    ):
        process.seal(rows, 4)


OPENS_IN_A_THREAD = """
import os, threading, time, ctypes
from honest import build, train, logits
opened = threading.Event()
def hide():
    ctypes.CDLL(None).syscall(436, 4000, 4001, 2)  # close_range: a table of open files of its own
    os.open(os.path.dirname(__file__) + "/text.bin", os.O_RDONLY)
    opened.set()
    time.sleep(1000)
threading.Thread(target=hide, daemon=True).start()
opened.wait()
"""

ENDS_ITS_FIRST_THREAD = """
import ctypes, threading
from honest import build, train, logits
from pytest_autoresearch.scoring import worker
serve = worker.serve
def in_a_thread(*args):
    threading.Thread(target=serve, args=args).start()
    ctypes.CDLL(None).syscall(60, 0)
import pytest_autoresearch.training.worker as own
own.serve = in_a_thread
"""


def test_files_of_a_thread_with_its_own_table_are_resident_after_the_seal(arena: Arena) -> None:
    start = arena.start({"train.py": OPENS_IN_A_THREAD.encode()}, "thread")
    path = arena.root / "scored" / "thread" / "text.bin"
    path.write_bytes(os.urandom(PAGES * mmap.PAGESIZE))
    with scorer(arena, start) as (process, _):
        evict(path)
        process.seal(arena.dataset.rows("train")[:4], 4)
        assert resident(path) == PAGES


@pytest.mark.skipif(os.uname().machine != "x86_64", reason="names a system call by its number")
def test_process_that_ends_its_first_thread_is_not_sealed(arena: Arena) -> None:
    start = arena.start({"train.py": ENDS_ITS_FIRST_THREAD.encode()}, "headless")
    with (
        scorer(arena, start) as (process, _),
        pytest.raises((CheatDetected, ScoringCrash), match=r"hides which files|does not show"),
    ):
        process.seal(arena.dataset.rows("train")[:4], 4)


def test_scoring_leaves_no_descriptor_open(arena: Arena) -> None:
    rows = arena.dataset.rows("train")[:4]
    counts = []
    for source in ("from honest import *", "from honest import *\ndef logits(model, x): 1 / 0"):
        for _ in range(2):
            with (
                contextlib.suppress(ScoringCrash),
                scorer(arena, arena.start({"train.py": source.encode()}, "leak")) as (process, _),
            ):
                process.seal(rows, 4)
                process.claims(rows, 4)
            counts.append(len(os.listdir("/proc/self/fd")))
    assert len(set(counts[1:])) == 1


def evict(path: Path) -> None:
    """Drop the pages of a file from the page cache."""
    fd = os.open(path, os.O_RDONLY)
    os.fsync(fd)
    os.posix_fadvise(fd, 0, 0, os.POSIX_FADV_DONTNEED)
    os.close(fd)


def resident(path: Path) -> int:
    """Count the pages of a file that are in the page cache."""
    libc = ctypes.CDLL(None)
    with path.open("r+b") as file, mmap.mmap(file.fileno(), 0) as pages:
        states = (ctypes.c_ubyte * PAGES)()
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        assert libc.mincore(ctypes.c_void_p(address), ctypes.c_size_t(len(pages)), states) == 0
        return sum(state & 1 for state in states)


@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_filter_allows_what_computing_needs_and_reports_the_rest(machine: str) -> None:
    def verdict(name: str, *arguments: int, gpu: bool = False) -> int | None:
        number = syscalls.number(name, machine)
        code = program(machine, gpu=gpu)
        return None if number is None else run(code, 0, number, *arguments)

    assert {verdict(name) for name in COMPUTING} <= {ALLOWED, None}
    for name in ("sendfile", "splice", "copy_file_range"):
        assert describe(verdict(name) or 0) == "ENOSYS"
    for name in ("openat", "fadvise64", "preadv2", "readahead", "socket", "ioctl", "kill"):
        assert verdict(name) == NOTIFIED
    assert verdict("ioctl", gpu=True) == ALLOWED
    assert verdict("clone", CLONE_THREAD) == ALLOWED
    assert verdict("clone", 17) == NOTIFIED
