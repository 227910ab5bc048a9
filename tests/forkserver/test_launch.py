from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.runs import (
    HONEST,
    SEQ_LEN,
    VOCAB,
    alive,
    all_gone,
    candidate,
    descendants,
    shared_launcher,
)

from pytest_autoresearch.forkserver.client import LaunchFailed
from pytest_autoresearch.forkserver.launch import PRELOAD, ChildGone, ChildTimeout, Job, Launcher
from pytest_autoresearch.sandbox import survey
from pytest_autoresearch.training.context import write_files

WITHOUT_DYNAMO = PRELOAD[1:]
"""Starts a second or two sooner."""

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks confined processes")


@pytest.fixture
def launcher():
    return shared_launcher()


@pytest.fixture
def make_job(tmp_path: Path):
    def make(train_py: str = HONEST, **fields) -> Job:
        write_files({"train.py": train_py.encode()}, tmp_path / "copy")
        (tmp_path / "work").mkdir()
        return Job(
            "train", tmp_path / "copy", "train.py", tmp_path / "work" / "checkpoint.safetensors",
            tmp_path / "work", vocab_size=VOCAB, seq_len=SEQ_LEN, **fields,
        )  # fmt: skip

    return make


def first(child, kind: str) -> dict[str, object]:
    message = child.receive(30)
    assert message["type"] == kind, message
    return message


def test_child_builds_the_model_and_waits_for_data(launcher, make_job):
    child = launcher.start(make_job())
    message = first(child, "ready")
    assert message["parameters"] == VOCAB * 16 + 16 * VOCAB + VOCAB
    assert message["bytes"] == 4 * message["parameters"]
    with pytest.raises(ChildTimeout):
        child.receive(0.2)
    assert child.report["session"].startswith("ok")
    end = child.kill()
    assert end.signal == signal.SIGKILL
    assert end.stopped == "kill"
    assert child.kill() is end


def test_training_code_has_no_environment_or_descriptors_of_the_harness(
    launcher, make_job, monkeypatch
):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-ant-secret-secret")
    spy = (
        "import json, os\n"
        "def is_open(fd):\n"
        "    try: return bool(os.fstat(fd))\n"
        "    except OSError: return False\n"
        "names = [name for name in os.environ if name == 'HOME' or 'KEY' in name]\n"
        "seen = {'names': names, 'cwd': os.getcwd(),\n"
        "        'fds': [fd for fd in range(3, 64) if is_open(fd)]}\n"
        "raise RuntimeError(json.dumps(seen))\n"
    )
    job = make_job(spy)
    child = launcher.start(job)
    error = str(first(child, "error")["error"])
    child.kill()
    seen = json.loads(error[error.index("{") : error.rindex("}") + 1])
    assert "ANTHROPIC_API_KEY" not in seen["names"]
    assert "HOME" in seen["names"]
    assert seen["cwd"] == str(job.writable)
    assert len(seen["fds"]) == 1  # its channel


def test_cpu_seconds_include_helper_processes(launcher, make_job):
    burn = candidate(
        """
        import os, time
        for _ in range(2):
            if os.fork() == 0:
                began = time.process_time()
                while time.process_time() - began < 0.3: pass
                os._exit(0)
        for _ in range(2): os.wait()
        batches(1, 1)
        raise SystemExit("burnt")
        """
    )
    child = launcher.start(make_job(burn))
    first(child, "ready")
    before = child.cpu_seconds()
    fd = os.memfd_create("tokens")
    os.ftruncate(fd, 64)
    child.send({"type": "go"}, [fd])
    os.close(fd)
    assert "burnt" in str(first(child, "error")["error"])
    assert child.cpu_seconds() - before == pytest.approx(0.6, abs=0.2)
    assert child.kill().cpu_seconds >= 0.55


def test_paused_group_uses_no_cpu_until_resumed(launcher, make_job):
    child = launcher.start(make_job("while True: pass"))
    while child.cpu_seconds() < 0.1:
        time.sleep(0.01)
    child.pause()
    time.sleep(0.1)
    stopped_at = child.cpu_seconds()
    time.sleep(0.4)
    assert child.cpu_seconds() - stopped_at < 0.05
    child.resume()
    while child.cpu_seconds() < stopped_at + 0.1:
        time.sleep(0.01)
    child.pause()
    assert child.kill().signal == signal.SIGKILL


def test_exit_status_of_a_child_is_reported(launcher, make_job):
    child = launcher.start(make_job("import os; os._exit(7)"))
    with pytest.raises(ChildGone) as gone:
        child.receive(30)
    assert (gone.value.exit.code, gone.value.exit.stopped) == (7, "")
    assert child.kill() is gone.value.exit


def test_fatal_signal_of_a_child_is_named(launcher, make_job):
    child = launcher.start(make_job("import ctypes; ctypes.string_at(0)"))
    with pytest.raises(ChildGone, match="SIGSEGV"):
        child.receive(30)


def test_child_that_closes_its_channel_is_killed(launcher, make_job):
    child = launcher.start(make_job("import os, time\nos.closerange(3, 64)\ntime.sleep(600)"))
    with pytest.raises(ChildGone):
        child.receive(30)
    assert not alive(child.pid)


def test_group_over_its_memory_limit_is_stopped(launcher, make_job):
    hog = "import time\nkept = bytearray(1 << 30)\nkept[::4096] = b'x' * (1 << 18)\ntime.sleep(600)"
    child = launcher.start(make_job(hog, memory_limit_bytes=700 << 20))
    with pytest.raises(ChildGone) as gone:
        child.receive(30)
    assert gone.value.exit.stopped == "memory"
    assert gone.value.exit.peak_memory_bytes > 700 << 20


IN_MEMORY = {
    "a memory file": "keep = os.memfd_create('x')\nfill(keep)",
    "memory files of a helper": "if os.fork() == 0:\n    for i in range(8): fill(os.memfd_create('x'), 100)",
    "shared memory that is not resident": (
        "keep = mmap.mmap(-1, SIZE << 20)\nfor at in range(0, SIZE << 20, 4096): keep[at] = 1\n"
        "keep.madvise(mmap.MADV_DONTNEED)"
    ),
    "a memory file that is mapped and closed": (
        "fd = os.memfd_create('x')\nfill(fd)\nkeep = mmap.mmap(fd, SIZE << 20)\nos.close(fd)"
    ),
    "files of /dev/shm": "fill(os.open('/dev/shm/x', os.O_CREAT | os.O_WRONLY))",
}


@pytest.mark.parametrize("name", IN_MEMORY)
def test_memory_that_is_not_resident_counts(launcher, make_job, name):
    if "/dev/shm" in name and not survey().active("mount"):
        pytest.skip("namespaces are not permitted here")
    hog = (
        "import mmap, os, time\nSIZE = 900\n"
        "def fill(fd, size=SIZE):\n    for _ in range(size): os.write(fd, b'x' * (1 << 20))\n"
        f"{IN_MEMORY[name]}\ntime.sleep(600)"
    )
    child = launcher.start(make_job(hog, memory_limit_bytes=700 << 20))
    with pytest.raises(ChildGone, match="MiB of memory, above its limit"):
        child.receive(30)


def test_files_under_way_in_a_socket_are_hidden_files(launcher, make_job):
    hog = (
        "import os, socket, time\nfd = os.memfd_create('x')\nhere, there = socket.socketpair()\n"
        "socket.send_fds(here, [b'x'], [fd])\nos.close(fd)\ntime.sleep(600)"
    )
    child = launcher.start(make_job(hog))
    with pytest.raises(ChildGone, match="does not show its open files"):
        child.receive(30)


ON_DISK = {
    "a file": "keep = os.open('x', os.O_CREAT | os.O_RDWR)\nos.posix_fallocate(keep, 0, 90 << 20)",
    "a deleted file": (
        "keep = os.open('x', os.O_CREAT | os.O_RDWR)\nos.unlink('x')\n"
        "os.posix_fallocate(keep, 0, 90 << 20)"
    ),
    "deleted files of a helper": (
        "if os.fork() == 0:\n  for name in 'abcdefghi':\n"
        "    os.posix_fallocate(os.open(name, os.O_CREAT | os.O_RDWR), 0, 10 << 20)\n"
        "    os.unlink(name)\n"
    ),
    "a deleted file that is mapped and closed": (
        "fd = os.open('x', os.O_CREAT | os.O_RDWR)\nos.unlink('x')\n"
        "os.posix_fallocate(fd, 0, 90 << 20)\nkeep = mmap.mmap(fd, 90 << 20)\nos.close(fd)"
    ),
}


@pytest.mark.parametrize("name", ON_DISK)
def test_group_over_its_disk_limit_is_stopped(launcher, make_job, name):
    hog = f"import mmap, os, time\n{ON_DISK[name]}\ntime.sleep(600)"
    child = launcher.start(make_job(hog, disk_limit_bytes=80 << 20))
    with pytest.raises(ChildGone, match="wrote more than its limit"):
        child.receive(30)


def test_group_that_continues_itself_is_stopped(launcher, make_job):
    child = launcher.start(make_job("while True: pass", sandbox="off"))
    while child.cpu_seconds() < 0.1:
        time.sleep(0.01)
    child.pause()
    os.killpg(child.pid, signal.SIGCONT)
    child.resume()
    with pytest.raises(ChildGone, match="ran while it was paused"):
        child.receive(30)


def test_killing_the_harness_leaves_no_process(tmp_path, make_job):
    """The candidate has helper processes and ignores SIGTERM, SIGHUP and SIGINT."""
    make_job(
        "import os, signal, time\n"
        "for name in ('SIGTERM', 'SIGHUP', 'SIGINT'):\n"
        "    signal.signal(getattr(signal, name), signal.SIG_IGN)\n"
        "for _ in range(2):\n"
        "    if os.fork() == 0:\n"
        "        os.setsid()\n"
        "        if os.fork() == 0: pass\n"
        "        time.sleep(600)\n"
        "time.sleep(600)\n"
    )
    harness = subprocess.Popen(
        [sys.executable, "-c", HARNESS, str(tmp_path), str(VOCAB), str(SEQ_LEN)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert harness.stdout.readline() == "started\n"
    started = descendants(harness.pid)
    while len(started) < 5:  # at least forkserver, candidate and helpers
        time.sleep(0.05)
        started |= descendants(harness.pid)
    harness.kill()
    harness.wait()
    assert all_gone(started)


HARNESS = """
import sys, time
from pathlib import Path
from pytest_autoresearch.forkserver.launch import PRELOAD, Job, Launcher
root, vocab, length = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
launcher = Launcher(preload=PRELOAD[1:])
child = launcher.start(Job(
    "train", root / "copy", "train.py", root / "work" / "c", root / "work",
    vocab_size=vocab, seq_len=length,
))
print("started", flush=True)
time.sleep(600)
"""


def test_dead_forkserver_is_an_infrastructure_failure_and_is_replaced(tmp_path, make_job):
    job = make_job("import time; time.sleep(600)")
    with Launcher(preload=WITHOUT_DYNAMO) as launcher:
        child = launcher.start(job)
        for pid in descendants(os.getpid()):
            if child.pid in descendants(pid):
                os.kill(pid, signal.SIGKILL)
        with pytest.raises(LaunchFailed, match="forkserver died"):
            child.receive(30)
        assert all_gone({child.pid})
        with pytest.raises(ChildTimeout):
            launcher.start(job).receive(0.05)


def test_failed_import_of_the_forkserver_is_named():
    with (
        Launcher(preload=("no_such_module_at_all",)) as launcher,
        pytest.raises(LaunchFailed, match="no_such_module_at_all"),
    ):
        launcher.start(Job("train", Path("/"), "train.py", Path("/nowhere")))


def test_closing_a_launcher_ends_its_children(make_job):
    launcher = Launcher(preload=WITHOUT_DYNAMO)
    child = launcher.start(make_job("import time; time.sleep(600)"))
    assert child.pid in descendants(os.getpid())
    launcher.close()
    launcher.close()
    assert all_gone({child.pid})


class Kept:
    def __init__(self) -> None:
        self.closed = 0

    def close(self) -> None:
        self.closed += 1


def test_kept_resource_is_closed_when_its_key_changes():
    launcher = Launcher()
    one = launcher.keep(1, Kept)
    assert launcher.keep(1, Kept) is one
    other = launcher.keep(2, Kept)
    assert other is not one
    assert one.closed == 1
    launcher.close()
    assert (one.closed, other.closed) == (1, 1)
