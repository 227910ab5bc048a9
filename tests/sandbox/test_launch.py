"""External commands under a policy, and the headline of the report."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time

import pytest

from pytest_autoresearch.sandbox import launch
from pytest_autoresearch.sandbox.launch import survey
from pytest_autoresearch.sandbox.limits import candidate_environment
from pytest_autoresearch.sandbox.policy import (
    LAYERS,
    Limits,
    Policy,
    Report,
    SandboxError,
    SandboxUnavailable,
)

linux = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")
NAMESPACES = ("user", "network", "ipc", "pid", "mount")


@pytest.fixture(params=["portable", "full"])
def tier(request):
    """Return the keyword arguments of a policy and the mode of a tier."""
    if request.param != "portable" and not survey().active("mount"):
        pytest.skip("namespaces are not permitted here")
    skip = NAMESPACES if request.param == "portable" else ()
    return {"skip": skip}, "auto"


def output(argv, policy, mode="auto", **options):
    process = launch(
        argv, policy, mode, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, **options
    )
    text, _ = process.communicate()
    return text, process


@linux
def test_command_writes_its_folder_and_reads_nothing_else(tmp_path, tier):
    options, mode = tier
    (tmp_path / "run").mkdir()
    (tmp_path / "secret").write_text("hidden")
    policy = Policy(write=(str(tmp_path / "run"),), **options)
    text, process = output(
        ["sh", "-c", f"echo x > made; cat {tmp_path}/secret; echo y > {tmp_path}/other; pwd"],
        policy, mode,
    )  # fmt: skip
    assert (tmp_path / "run/made").read_text() == "x\n"
    assert "hidden" not in text
    assert text.endswith(f"{tmp_path}/run\n")
    assert not (tmp_path / "other").exists()
    assert process.report.verified
    assert tuple(process.report.layers) == LAYERS


@linux
def test_hidden_files_and_campaign_state_are_not_readable(tmp_path, tier):
    options, mode = tier
    for name in ("copy/open.txt", "copy/closed.txt", "copy/.autoresearch/ledger"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(f"text of {name}\n")
    policy = Policy(
        read=(str(tmp_path / "copy"),), hide=(str(tmp_path / "copy/closed.txt"),), **options
    )
    text, _ = output(
        ["sh", "-c", "cat open.txt closed.txt .autoresearch/ledger"], policy, mode,
        cwd=str(tmp_path / "copy"),
    )  # fmt: skip
    assert "text of copy/open.txt" in text
    assert "text of copy/closed.txt" not in text
    assert "ledger\n" not in text.replace("ledger: ", "")


@linux
def test_environment_is_the_one_given(tmp_path, tier, monkeypatch):
    options, mode = tier
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    env = candidate_environment(str(tmp_path), extra={"GREETING": "hello"})
    text, _ = output(["env"], Policy(write=(str(tmp_path),), **options), mode, env=env)
    assert "GREETING=hello" in text
    assert "sk-secret" not in text


@linux
def test_exit_status_reaches_the_caller(tier):
    options, mode = tier
    process = launch(["sh", "-c", "exit 7"], Policy(**options), mode)
    assert process.wait() == 7


@linux
def test_killing_the_group_ends_background_processes(tmp_path, tier):
    options, mode = tier
    policy = Policy(write=(str(tmp_path),), **options)
    script = "(setsid sh -c 'while :; do date >> beat; sleep 0.01; done' &) ; sleep 600"
    process = launch(["sh", "-c", script], policy, mode, stdout=subprocess.DEVNULL)
    while not (tmp_path / "beat").exists():
        time.sleep(0.01)
    process.kill_group()
    assert process.wait() == -signal.SIGKILL
    time.sleep(0.2)
    (tmp_path / "beat").unlink()
    time.sleep(0.2)
    assert not (tmp_path / "beat").exists()


@linux
def test_kept_descriptor_is_inherited_and_others_are_not(tmp_path, tier):
    options, mode = tier
    read, write = os.pipe()
    os.set_inheritable(read, True)
    code = f"import os; os.write({write}, b'through'); os.close({read})"
    process = launch(
        [sys.executable, "-I", "-S", "-c", code],
        Policy(**options), mode, keep_fds=(write,), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    os.close(write)
    with open(read) as stream:
        assert stream.read() == "through"
    assert "Bad file descriptor" in process.communicate()[1]


@linux
def test_network_reaches_a_server_only_if_allowed(tier):
    options, mode = tier
    code = "import socket, sys; socket.create_connection(('127.0.0.1', int(sys.argv[1])), 5)"
    with socket.create_server(("127.0.0.1", 0)) as server:
        command = [sys.executable, "-I", "-S", "-c", code, str(server.getsockname()[1])]
        for network in (True, False):
            policy = Policy(network=network, **options)
            process = launch(command, policy, mode, stderr=subprocess.DEVNULL)
            assert (process.wait() == 0) == network
            assert process.report.offline != network


@linux
def test_virtual_environment_python_finds_its_packages(tmp_path, tier):
    options, mode = tier
    code = "import numpy, sys; print(numpy.ones(3).sum(), sys.prefix)"
    policy = Policy(write=(str(tmp_path),), env=candidate_environment(str(tmp_path)), **options)
    text, _ = output([sys.executable, "-c", code], policy, mode)
    assert text == f"3.0 {sys.prefix}\n"


@linux
def test_standard_input_and_output_are_those_given(tier):
    options, mode = tier
    process = launch(
        ["cat"], Policy(**options), mode, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.communicate("echoed")[0] == "echoed"


@linux
def test_missing_command_is_named():
    with pytest.raises(SandboxError, match="command 'no-such-agent' not found on PATH"):
        launch(["no-such-agent"], Policy())


@linux
def test_file_that_cannot_be_executed_is_named(tmp_path):
    broken = tmp_path / "broken"
    broken.write_bytes(b"\x7fELFgarbage")
    broken.chmod(0o755)
    with pytest.raises(SandboxError, match=r"broken cannot be executed: Exec format error"):
        launch([str(broken)], Policy())


@linux
def test_unreachable_working_directory_is_named(tmp_path):
    with pytest.raises(SandboxError, match=f"working directory {tmp_path}/gone cannot be entered"):
        launch(["true"], Policy(), cwd=str(tmp_path / "gone"))


@linux
def test_require_raises_before_the_command_runs(tmp_path):
    policy = Policy(write=(str(tmp_path),), skip=(*NAMESPACES, "landlock"))
    with pytest.raises(SandboxUnavailable, match="cannot confine file access"):
        launch(["touch", "made"], policy, "require")
    assert not (tmp_path / "made").exists()


def test_survey_is_cached_and_reports_every_layer():
    assert survey() is survey()
    assert tuple(survey().layers) == (*LAYERS, "seal")


def test_policy_survives_json():
    policy = Policy(
        read=("/a",), write=("/b",), devices=("/dev/nvidia0",), hide=("/c",), network=True,
        gpu=True, keep_fds=(5, 6), env={"A": "1"}, cwd="/b", limits=Limits(open_files=9), skip=("pid",),
    )  # fmt: skip
    assert Policy.from_json(json.loads(json.dumps(policy.to_json()))) == policy
    assert Policy.from_json(json.loads(json.dumps(Policy().to_json()))) == Policy()


def states(*failed: str, reason: str = "failed: unshare: EPERM") -> dict[str, str]:
    return {layer: reason if layer in failed else "ok" for layer in LAYERS}


@pytest.mark.parametrize(
    ("layers", "headline", "verified"),
    [
        (states(), "landlock+seccomp+namespaces (7/7)", True),
        (
            states(*NAMESPACES),
            "landlock+seccomp (3/7), missing: namespaces (unshare: EPERM)",
            True,
        ),
        (
            states("mount", "pid"),
            "landlock+seccomp+namespaces (5/7), missing: mount (unshare: EPERM), "
            "pid (unshare: EPERM)",
            True,
        ),
        (
            states("landlock", *NAMESPACES),
            "seccomp (2/7), missing: landlock (unshare: EPERM), namespaces (unshare: EPERM)",
            False,
        ),
        (states("seccomp", *NAMESPACES), None, False),
        (states("seccomp"), None, False),
        (states("ipc"), None, True),
        (states("privileges"), None, False),
        (states("seccomp", "landlock"), None, False),
    ],
)
def test_headline_and_verified(layers, headline, verified):
    report = Report(layers)
    assert headline in (None, report.headline())
    assert report.verified is verified


def test_score_of_a_process_that_was_not_sealed_is_not_verified():
    assert Report({**states(), "seal": "ok: sealed"}).verified
    report = Report({**states(), "seal": "failed: seccomp: EBUSY"})
    assert report.lacking == ("traces of the text that is scored",)
    assert report.rests_on["file access"] == ("landlock", "mount")


def test_empty_report_is_not_verified():
    assert not Report({}).verified
    assert Report({}).headline().startswith("no confinement (0/7)")
