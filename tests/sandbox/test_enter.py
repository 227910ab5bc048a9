"""`enter`: effects on the calling process and on its parent and children."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import errno
import json
import os
import resource
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pytest_autoresearch import sandbox
from pytest_autoresearch.core.processes import process_start, read_stat
from pytest_autoresearch.sandbox.policy import Limits, Policy, Report, SandboxError

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

ROOT = Path(__file__).parents[2]
NAMESPACES = ("user", "network", "ipc", "pid", "mount")
TIERS = {"portable": NAMESPACES, "full": ()}


@pytest.fixture(params=list(TIERS))
def skip(request):
    if request.param == "full" and not sandbox.survey().active("pid"):
        pytest.skip("namespaces are not permitted here")
    return TIERS[request.param]


class Fork:
    """A child that enters a sandbox, runs `body(report)` there and sends back the result."""

    def __init__(
        self,
        policy: Policy,
        body: Callable[[Report], object],
        mode: sandbox.Mode = "auto",
        before: Callable[[], object] = lambda: None,
    ) -> None:
        self._read, write = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            try:
                before()
                kept = dataclasses.replace(policy, keep_fds=(*policy.keep_fds, write))
                report = sandbox.enter(kept, mode)
                answer: object = {"value": body(report), "layers": dict(report.layers)}
            except BaseException as error:
                answer = {"error": f"{type(error).__name__}: {error}"}
            os.write(write, json.dumps(answer).encode() + b"\n")
            os.close(write)
            if isinstance(answer, dict) and answer.get("value") == "stay":
                time.sleep(600)
            os._exit(0)
        os.close(write)

    @property
    def inner(self) -> int:
        """Process id of the confined process, as seen from outside."""
        children = Path(f"/proc/{self.pid}/task/{self.pid}/children").read_text().split()
        return int(children[0]) if children else self.pid

    def answer(self) -> dict[str, Any]:
        with open(self._read) as stream:
            return json.loads(stream.readline() or "null")

    def wait(self) -> int:
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])


def confined(policy: Policy, body: Callable[[Report], object], **options: Any) -> dict[str, Any]:
    fork = Fork(policy, body, **options)
    answer = fork.answer()
    fork.wait()
    return answer


def ended(pid: int) -> bool:
    """Wait until a process has ended; return whether it did within 20 seconds."""
    for _ in range(2000):
        if not process_start(pid):
            return True
        time.sleep(0.01)
    return False


def test_every_layer_is_reported(tmp_path, skip):
    answer = confined(Policy(write=(str(tmp_path),), skip=skip), lambda report: report.verified)
    assert answer["value"] is True
    assert tuple(answer["layers"]) == sandbox.LAYERS
    for layer, state in answer["layers"].items():
        assert state.startswith("skipped" if layer in skip else ("ok", "skipped: the policy keeps"))


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_process_leads_its_own_group_under_the_pid_that_was_forked(skip, mode):
    fork = Fork(Policy(skip=skip), lambda report: "stay", mode=mode)
    fork.answer()
    inner = fork.inner
    assert os.getpgid(fork.pid) == os.getsid(fork.pid) == fork.pid
    assert os.getpgid(inner) == fork.pid
    os.killpg(fork.pid, signal.SIGKILL)
    assert fork.wait() == -signal.SIGKILL
    assert ended(inner)


def test_confined_process_is_a_child_only_in_a_pid_namespace(skip):
    fork = Fork(Policy(skip=skip), lambda report: "stay")
    fork.answer()
    assert "NoNewPrivs:\t1" in Path(f"/proc/{fork.inner}/status").read_text()
    assert (fork.inner != fork.pid) == (skip == ())
    os.killpg(fork.pid, signal.SIGKILL)
    fork.wait()


def daemonise(policy_write: str) -> None:
    """Start a daemon by the classical double fork with a new session."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for fd in range(3):
                os.close(fd)
            while True:
                Path(policy_write, "alive").write_text(str(time.monotonic()))
                time.sleep(0.01)
        os._exit(0)
    os.wait()


def test_group_kill_ends_daemons(tmp_path, skip):
    def body(report: Report) -> str:
        daemonise(str(tmp_path))
        while not (tmp_path / "alive").exists():
            time.sleep(0.01)
        return "stay"

    fork = Fork(Policy(write=(str(tmp_path),), skip=skip), body)
    fork.answer()
    members = group_members(fork.pid)
    assert len(members) >= 2
    os.killpg(fork.pid, signal.SIGKILL)
    fork.wait()
    assert all(ended(pid) for pid in members)
    (tmp_path / "alive").unlink()
    time.sleep(0.1)
    assert not (tmp_path / "alive").exists()


def group_members(group: int) -> list[int]:
    members = []
    for name in filter(str.isdigit, os.listdir("/proc")):
        with contextlib.suppress(OSError):
            if int(read_stat(name)[2]) == group:
                members.append(int(name))
    return members


def test_process_dies_with_the_process_that_forked_it(skip):
    read, write = os.pipe()
    parent = os.fork()
    if parent == 0:
        fork = Fork(Policy(skip=skip), lambda report: "stay")
        fork.answer()
        os.write(write, json.dumps([fork.pid, fork.inner]).encode() + b"\n")
        signal.pause()
    os.close(write)
    with open(read) as stream:
        started = json.loads(stream.readline())
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    assert all(ended(pid) for pid in started)


@pytest.mark.parametrize("code", [0, 3, 255])
def test_exit_status_is_forwarded(skip, code):
    assert Fork(Policy(skip=skip), lambda report: os._exit(code)).wait() == code


def test_fatal_signal_is_forwarded(skip):
    def crash(report: Report) -> None:
        signal.signal(signal.SIGSEGV, signal.SIG_DFL)
        ctypes.string_at(0)

    assert Fork(Policy(skip=skip), crash).wait() == -signal.SIGSEGV


def test_descriptors_are_closed_except_those_kept(skip):
    kept, leaked = os.pipe()

    def body(report: Report) -> list[bool]:
        def is_open(fd: int) -> bool:
            try:
                os.fstat(fd)
            except OSError:
                return False
            return True

        return [is_open(fd) for fd in (0, 1, 2, kept, leaked)]

    answer = confined(Policy(keep_fds=(kept,), skip=skip), body)
    os.close(kept)
    os.close(leaked)
    assert answer["value"] == [True, True, True, True, False]


def test_missing_standard_streams_are_opened():
    answer = confined(
        Policy(), lambda report: [os.fstat(fd) is not None for fd in range(3)],
        before=lambda: [os.close(fd) for fd in range(3)],
    )  # fmt: skip
    assert answer["value"] == [True] * 3


def test_environment_is_replaced_and_wiped_from_memory(tmp_path, skip):
    script = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pytest_autoresearch import sandbox\n"
        "if (pid := os.fork()) == 0:\n"
        f"    sandbox.enter(sandbox.Policy(env={{'A': '1'}}, skip={skip!r}))\n"
        "    block = open('/proc/self/environ', 'rb').read()\n"
        "    print(dict(os.environ), b'hunter2' in block, flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "print(b'hunter2' in open('/proc/self/environ', 'rb').read())\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "SECRET_KEY": "hunter2"}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines() == ["{'A': '1'} False", "True"]


def test_candidate_environment_omits_variables_of_the_caller(monkeypatch):
    monkeypatch.setenv("ANTHROPIC_API_KEY", "sk-secret")
    monkeypatch.setenv("LD_PRELOAD", "/evil.so")
    monkeypatch.setenv("LANG", "C.UTF-8")
    env = sandbox.candidate_environment("/run/here", threads=2, extra={"MY": "own"})
    assert not {"ANTHROPIC_API_KEY", "LD_PRELOAD"} & set(env)
    assert env["HOME"] == env["TMPDIR"] == "/run/here"
    assert (env["LANG"], env["MY"], env["OMP_NUM_THREADS"]) == ("C.UTF-8", "own", "2")
    assert env["CUDA_VISIBLE_DEVICES"] == ""
    assert sandbox.candidate_environment("/", cuda_devices="3")["CUDA_VISIBLE_DEVICES"] == "3"


def test_limits_are_lowered_and_never_raised(skip):
    def body(report: Report) -> list[tuple[int, int]]:
        kinds = (resource.RLIMIT_FSIZE, resource.RLIMIT_NOFILE, resource.RLIMIT_CORE)
        return [resource.getrlimit(kind) for kind in kinds]

    def lower() -> None:
        resource.setrlimit(resource.RLIMIT_NOFILE, (100, 100))

    limits = Limits(file_bytes=1 << 20, open_files=500)
    answer = confined(Policy(limits=limits, skip=skip), body, before=lower)
    assert answer["value"] == [[1 << 20] * 2, [100, 100], [0, 0]]


def test_threads_children_and_programs_still_work(tmp_path, skip):
    def body(report: Report) -> list[str]:
        results: list[str] = []
        thread = threading.Thread(target=lambda: results.append("thread"))
        thread.start()
        thread.join()
        shell = subprocess.run(["/bin/sh", "-c", "echo program"], capture_output=True, text=True)
        (tmp_path / "sub").mkdir()
        (tmp_path / "a").write_text("x")
        (tmp_path / "a").rename(tmp_path / "sub/a")
        return [*results, shell.stdout.strip(), *os.listdir(tmp_path / "sub")]

    answer = confined(Policy(write=(str(tmp_path),), skip=skip), body)
    assert answer["value"] == ["thread", "program", "a"]


def test_process_with_threads_is_refused():
    def start_thread() -> None:
        threading.Thread(target=time.sleep, args=(600,), daemon=True).start()

    answer = confined(Policy(), lambda report: None, before=start_thread)
    assert "has 2 threads" in answer["error"]


def test_missing_writable_folder_is_named():
    answer = confined(Policy(write=("/nowhere/at/all",)), lambda report: None)
    assert answer["error"] == (
        "SandboxError: writable folder /nowhere/at/all does not exist; create it first"
    )


def test_require_is_refused_where_files_cannot_be_confined():
    policy = Policy(skip=("landlock", "mount"))
    answer = confined(policy, lambda report: None, mode="require")
    assert answer["error"].startswith("SandboxUnavailable: this machine cannot confine ")
    assert "file access" in answer["error"]
    assert "sandbox mode auto" in answer["error"]


@pytest.mark.parametrize("skipped", [NAMESPACES, ("landlock",), ("ipc",)])
def test_require_accepts_either_mechanism(skipped):
    if skipped != NAMESPACES and not sandbox.survey().active("mount"):
        pytest.skip("namespaces are not permitted here")
    assert "value" in confined(Policy(skip=skipped), lambda report: None, mode="require")


def test_require_is_refused_without_a_filter_of_system_calls():
    answer = confined(Policy(skip=("seccomp",)), lambda report: None, mode="require")
    assert "cannot confine keyrings, page cache and priorities: " in answer["error"]


def test_mode_off_is_reported_as_unconfined(tmp_path):
    outside = tmp_path / "outside"
    answer = confined(
        Policy(), lambda report: [outside.write_text("x"), report.verified], mode="off"
    )
    assert answer["value"] == [1, False]
    assert answer["layers"]["landlock"] == "skipped: the sandbox is off"


def test_allowed_network_is_reported_as_allowed(skip):
    def body(report: Report) -> list[object]:
        import socket

        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
        try:
            socket.socket(socket.AF_PACKET, socket.SOCK_RAW).close()
        except OSError as error:
            return [errno.errorcode[error.errno], report.offline, report.verified]
        return []

    answer = confined(Policy(network=True, skip=skip), body)
    assert answer["value"] == ["EACCES", False, False]


def test_private_folders_show_only_files_written_inside():
    if not sandbox.survey().active("mount"):
        pytest.skip("namespaces are not permitted here")

    def body(report: Report) -> list[object]:
        Path("/tmp/made").write_text("x")
        Path("/dev/shm/made").write_text("x")
        return [sorted(os.listdir("/tmp")), os.listdir("/dev/shm"), "sda" in os.listdir("/dev")]

    # a checkout or an interpreter that itself lies below /tmp is bound there
    bound = {
        Path(path).resolve().parts[2]
        for path in (ROOT, sys.prefix, sys.base_prefix)
        if Path(path).resolve().parts[:2] == ("/", "tmp")
    }
    answer = confined(Policy(), body)
    assert answer["value"] == [sorted({"made", *bound}), ["made"], False]


def test_two_sandboxes_can_write_one_folder(tmp_path, skip):
    policy = Policy(write=(str(tmp_path),), skip=skip)
    for name in ("one", "two"):
        answer = confined(policy, lambda report, name=name: (tmp_path / name).write_text(name))
        assert answer["value"] == 3
    assert sorted(os.listdir(tmp_path)) == ["one", "two"]


def test_machine_without_a_system_call_table_is_reported_with_the_reason():
    script = (
        f"import os, sys; sys.path.insert(0, {str(ROOT)!r})\n"
        "from pytest_autoresearch import sandbox\n"
        "sandbox.syscalls.AUDIT_ARCH.clear()\n"
        "sandbox.prepare(sandbox.Policy(write=('/nowhere',)))\n"
        "if (pid := os.fork()) == 0:\n"
        "    report = sandbox.enter(sandbox.Policy(env={}))\n"
        "    print(report.verified, report.layers['landlock'], report.headline(), flush=True)\n"
        "    os._exit(0)\n"
        "os.waitpid(pid, 0)\n"
        "try: sandbox.enter(sandbox.Policy(), 'require')\n"
        "except sandbox.SandboxUnavailable as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    first, second = done.stdout.splitlines()
    reason = f"no system call table for {os.uname().machine}"
    assert first.startswith(f"False skipped: {reason} no confinement (0/7)")
    assert "cannot confine" in second
    assert reason in second


def test_sandbox_errors_are_of_one_kind():
    assert issubclass(sandbox.SandboxUnavailable, SandboxError)
