"""Escape attempts of `probe` in every tier, as root and as an ordinary user."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from support import probe

from pytest_autoresearch.sandbox.launch import survey
from pytest_autoresearch.sandbox.policy import COUNTED

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="needs Linux")

ROOT = Path(__file__).parents[2]
ORDINARY = 1001
NAMESPACES = ("user", "network", "ipc", "pid", "mount")
TIERS: dict[str, dict[str, Any]] = {
    "off": {"mode": "off"},
    "portable": {"mode": "auto", "skip": NAMESPACES},
    "container": {"mode": "auto", "refuse_namespaces": True},
    "full": {"mode": "auto"},
    "namespaces": {"mode": "auto", "skip": ("landlock", "seccomp")},
}
KNOWN_OPEN = {
    "portable": {"stat_validation"},
    "container": {"stat_validation"},
    "full": set[str](),
}
HIDDEN = [
    "mailbox.py", "turtle.py", "ftplib.py", "imaplib.py", "smtplib.py", "pickletools.py",
    "pstats.py", "plistlib.py", "xmlrpc/client.py", "xmlrpc/server.py", "wsgiref/handlers.py",
    "http/cookiejar.py", "http/server.py", "trace.py", "pyclbr.py", "modulefinder.py",
    "statistics.py", "timeit.py", "zipapp.py", "tkinter/ttk.py",
]  # fmt: skip

USERS = ["me", "ordinary user"] if os.getuid() == 0 else ["me"]


@functools.cache
def readable_interpreter() -> str:
    """Return an interpreter that the ordinary user may run, or skip the test."""
    for python in (sys.executable, "/usr/bin/python3", "/usr/local/bin/python3"):
        code = f"import sys; sys.path.insert(0, {str(ROOT)!r}); import pytest_autoresearch.sandbox"
        if os.path.exists(python) and run_as("ordinary user", [python, "-c", code]).returncode == 0:
            return python
    pytest.skip("no interpreter that another user may run")


def run_as(user: str, command: list[str]) -> subprocess.CompletedProcess[str]:
    other: dict[str, Any] = {"user": ORDINARY, "group": ORDINARY, "extra_groups": []}
    try:
        return subprocess.run(
            command, capture_output=True, text=True, cwd="/", **(other if user != "me" else {})
        )
    except PermissionError:
        return subprocess.CompletedProcess(command, 126)


def arena(folder: Path, user: str, **settings: Any) -> dict[str, Any]:
    """Run `probe`'s arena as `user` and return its output."""
    python = sys.executable
    # pytest's own folders are private to this user
    work = Path("/var/tmp", f"arena-{os.getpid()}-{folder.name}")
    work.mkdir(mode=0o755)
    try:
        if user != "me":
            python = readable_interpreter()
            os.chown(work, ORDINARY, ORDINARY)
        given = {"root": str(ROOT), "folder": str(work / "arena"), **settings}
        done = run_as(user, [python, probe.__file__, "arena", json.dumps(given)])
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        return result
    finally:
        subprocess.run(["rm", "-rf", str(work)], check=True)


def needs_namespaces() -> None:
    if not survey().active("mount"):
        pytest.skip("namespaces are not permitted here")


def everything_is_permitted() -> bool:
    """Return whether only the sandbox can block an attack: real root outside any container."""
    return os.getuid() == 0 and survey().active("mount") and os.path.exists("/dev/kmsg")


def opened(result: dict[str, Any]) -> set[str]:
    return {name for name, outcome in result["results"].items() if outcome.startswith("OPEN")}


def test_there_are_enough_attacks():
    assert len(set(probe.ATTACKS) - set(probe.CONTROLS)) >= 40


@pytest.mark.parametrize("user", USERS)
def test_attacks_succeed_without_a_sandbox(tmp_path, user):
    """Control: an attempt that is blocked here proves nothing about the sandbox."""
    result = arena(tmp_path, user, **TIERS["off"])
    expected = set(probe.ATTACKS) - {"large_file"}  # the limits hold in every mode
    if user != "me" or not everything_is_permitted():
        expected -= probe.PRIVILEGED
    expected -= {"read_disk", "performance_counters", "asynchronous_ring"}  # machine's own policy
    assert expected <= opened(result), {n: result["results"][n] for n in expected - opened(result)}
    assert not result["verified"]


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", ["portable", "container", "full"])
def test_attacks_are_blocked(tmp_path, tier, user):
    if tier == "full":
        needs_namespaces()
    result = arena(tmp_path, user, **TIERS[tier])
    attacks = set(probe.ATTACKS) - set(probe.CONTROLS)
    escaped = {name: result["results"][name] for name in opened(result) & attacks}
    assert set(escaped) <= KNOWN_OPEN[tier], escaped
    assert set(probe.CONTROLS) <= opened(result)
    assert result["verified"]


@pytest.mark.parametrize("layer", COUNTED)
def test_layer_without_which_an_attack_succeeds_makes_scores_unverified(tmp_path, layer):
    needs_namespaces()
    result = arena(tmp_path, "me", mode="auto", skip=[layer])
    escaped = opened(result) - set(probe.CONTROLS) - {"stat_validation", "list_processes"}
    assert result["verified"] == (layer not in ("seccomp", "privileges")), escaped
    assert not (escaped and result["verified"])


def test_refused_namespaces_are_reported(tmp_path):
    result = arena(tmp_path, "me", **TIERS["container"])
    assert result["headline"] == "landlock+seccomp (3/7), missing: namespaces (unshare: EPERM)"


@pytest.mark.parametrize("user", USERS)
@pytest.mark.parametrize("tier", ["portable", "namespaces", "full"])
def test_hidden_texts_are_not_found(tmp_path, tier, user):
    if tier != "portable":
        needs_namespaces()
    result = arena(tmp_path, user, hide=HIDDEN, **TIERS[tier])
    *_hidden, training = result["needles"]
    assert set(result["results"]["found"]) == {training}
    assert result["results"]["read"] > 500


def test_hidden_texts_are_found_without_a_sandbox(tmp_path):
    result = arena(tmp_path, "me", hide=HIDDEN, **TIERS["off"])
    assert set(result["results"]["found"]) == set(result["needles"])
    assert len(result["needles"]) > 10
