from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from pytest_autoresearch.forkserver.usage import (
    ScannedCpu,
    Usage,
    open_cpu_counter,
    proportional_bytes,
    read_cpu_counter,
    scan_groups,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

BURN = """
import os, signal, sys, threading, time
def burn(seconds):
    began = time.thread_time()
    while time.thread_time() - began < seconds: pass
def helper(seconds):
    if os.fork() == 0:
        burn(seconds); os._exit(0)
sys.stdin.readline()
{body}
print("done", flush=True); sys.stdin.readline()
"""

BODIES = {
    "itself": ("burn(0.4)", 0.4),
    "threads": (
        "t = [threading.Thread(target=burn, args=(0.2,)) for _ in range(2)]\n"
        "[x.start() for x in t]; [x.join() for x in t]",
        0.4,
    ),
    "waited-for helpers": ("helper(0.2); helper(0.2); os.wait(); os.wait()", 0.4),
    "unwaited helpers": ("helper(0.2); helper(0.2); time.sleep(0.6)", 0.4),
    "orphans": (
        "if os.fork() == 0:\n    helper(0.4); os._exit(0)\nos.wait(); time.sleep(0.7)",
        0.4,
    ),
}
FORGOTTEN = ("signal.signal(signal.SIGCHLD, signal.SIG_IGN); helper(0.4); time.sleep(0.8)", 0.4)


@contextlib.contextmanager
def burning(body: str):
    """Start a process group that waits for a line, runs `body`, prints "done" and waits again."""
    process = subprocess.Popen(
        [sys.executable, "-c", BURN.format(body=body)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True, text=True,
    )  # fmt: skip
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()


def cpu_of_body(process: subprocess.Popen, read) -> float:
    """Return the CPU seconds of `body` by `read`, polled as by the harness."""
    before = read()
    process.stdin.write("\n")
    process.stdin.flush()
    while not select.select([process.stdout], [], [], 0.05)[0]:
        read()
    time.sleep(0.3)  # scans are a quarter of a second apart
    return read() - before


@pytest.mark.parametrize("name", [*BODIES, "forgotten helpers"])
def test_scans_count_the_whole_group(name):
    body, expected = BODIES.get(name, FORGOTTEN)
    with burning(body) as process:
        scanned = ScannedCpu(process.pid)
        assert cpu_of_body(process, scanned.seconds) == pytest.approx(expected, abs=0.15)


@pytest.mark.parametrize("name", [*BODIES, "forgotten helpers"])
def test_perf_counter_counts_the_whole_group(name):
    body, expected = BODIES.get(name, FORGOTTEN)
    with burning(body) as process:
        fd = open_cpu_counter(process.pid)
        if fd is None:
            pytest.skip("perf counters are not permitted here")
        took = cpu_of_body(process, lambda: read_cpu_counter(fd))
        assert took == pytest.approx(expected, abs=0.1)
        os.close(fd)


def test_cpu_seconds_never_decrease_when_processes_vanish():
    scanned = ScannedCpu(1)
    two_s = Usage(own_s=2.0, reaped_s=0.0, resident_bytes=0)
    scanned.note({-5: two_s, -6: two_s})
    assert scanned.seconds() == 4.0
    scanned.note({-5: two_s})
    assert scanned.seconds() == 4.0
    scanned.note({-5: Usage(2.0, 1.0, 0)})
    assert scanned.seconds() == 5.0


def test_reaped_process_is_not_counted_twice():
    scanned = ScannedCpu(1)
    scanned.note({-5: Usage(1.0, 0.0, 0), -6: Usage(3.0, 0.0, 0)})
    scanned.note({-5: Usage(1.0, 3.0, 0)})
    assert scanned.seconds() == 4.0


def test_command_name_with_brackets_is_parsed(tmp_path: Path):
    body = "open('/proc/self/comm', 'w').write(') R 1 (')"
    with burning(body) as process:
        cpu_of_body(process, lambda: 0.0)
        found = scan_groups([process.pid])[process.pid]
        assert set(found) == {process.pid}
        assert found[process.pid].resident_bytes > 1 << 20


def test_shared_memory_is_counted_once():
    body = "data = b'x' * (64 << 20)\nfor _ in range(3):\n    if os.fork() == 0: time.sleep(60)"
    with burning(body) as process:
        cpu_of_body(process, lambda: 0.0)
        members = scan_groups([process.pid])[process.pid]
        naive = sum(usage.resident_bytes for usage in members.values())
        once = proportional_bytes(list(members))
        assert naive > 4 * (60 << 20)
        assert (60 << 20) < once < 2 * (64 << 20)
