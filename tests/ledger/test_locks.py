"""Which sessions live: by kernel locks, in containers too, and by signs of life elsewhere."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from pytest_autoresearch.ledger.locks import SILENT_S
from pytest_autoresearch.ledger.store import CampaignBusy, Ledger

HOLD = """
import sys, time
from pathlib import Path
from pytest_autoresearch.ledger.store import Ledger

Ledger.open(Path(sys.argv[1]), "t").begin_session(driver="holder")
print("joined", flush=True)
time.sleep(600)
"""

JOIN = """
import sys
from pathlib import Path
from pytest_autoresearch.ledger.store import CampaignBusy, Ledger

try:
    Ledger.open(Path(sys.argv[1]), "t").begin_session(driver="joiner")
    print("joined")
except CampaignBusy as error:
    print("busy:", error)
"""


def unshare(*flags: str) -> list[str]:
    """Return the start of a command in namespaces of its own, or skip the test."""
    start = ["unshare", "--user", "--map-root-user", *flags]
    if shutil.which("unshare") is None or subprocess.run([*start, "true"]).returncode:
        pytest.skip("namespaces are not permitted here")
    return start


def hold(root: Path, start: Sequence[str] = ()) -> subprocess.Popen[str]:
    """Start a process that has joined the campaign."""
    holder = subprocess.Popen(
        [*start, sys.executable, "-c", HOLD, str(root)], stdout=subprocess.PIPE, text=True,
        start_new_session=True,
    )  # fmt: skip
    assert holder.stdout is not None
    assert holder.stdout.readline() == "joined\n"
    return holder


def end(holder: subprocess.Popen[str]) -> None:
    os.killpg(holder.pid, signal.SIGKILL)
    holder.communicate()


def join(root: Path, start: Sequence[str] = ()) -> str:
    """Join the campaign in another process; return what it says."""
    done = subprocess.run(
        [*start, sys.executable, "-c", JOIN, str(root)], capture_output=True, text=True, check=True
    )
    return done.stdout.strip()


def test_a_killed_container_with_another_host_name_is_over(tmp_path: Path) -> None:
    container = [*unshare("--uts"), "sh", "-c", 'hostname "$0"; exec "$@"']
    holder = hold(tmp_path, [*container, "job-1"])
    assert "is being worked on by process" in join(tmp_path, [*container, "job-2"])
    end(holder)
    assert join(tmp_path, [*container, "job-2"]) == "joined"


def test_containers_of_one_name_exclude_each_other(tmp_path: Path) -> None:
    container = unshare("--pid", "--fork", "--mount-proc")
    holder = hold(tmp_path, container)
    assert "is being worked on by process" in join(tmp_path, container)
    end(holder)
    assert join(tmp_path, container) == "joined"


@pytest.fixture
def elsewhere(tmp_path: Path) -> Ledger:
    """A ledger whose open session ran on another machine."""
    end(hold(tmp_path))
    ledger = Ledger.open(tmp_path, "t")
    with sqlite3.connect(ledger.path) as db:
        db.execute("UPDATE sessions SET host = 'other', boot_id = 'another boot'")
    return ledger


def test_a_session_of_another_machine_lives_while_it_shows_signs(elsewhere: Ledger) -> None:
    remedy = r"on other; .*its last sign of life is \d+ s old, so run again in \d+ s"
    with pytest.raises(CampaignBusy, match=remedy):
        elsewhere.begin_session(driver="d")
    long_ago = time.time() - SILENT_S - 1
    os.utime(elsewhere.path.with_name("session-1.lock"), (long_ago, long_ago))
    elsewhere.begin_session(driver="d")
    assert not elsewhere.path.with_name("session-1.lock").exists()


def test_a_session_before_the_last_boot_is_over(elsewhere: Ledger) -> None:
    with sqlite3.connect(elsewhere.path) as db:
        db.execute("UPDATE sessions SET host = ?", (os.uname().nodename,))
    elsewhere.begin_session(driver="d")


def test_the_workers_of_a_session_are_the_live_ones(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    holder = hold(tmp_path)
    ledger.begin_session(driver="holder", worker="main")
    assert ledger.live_processes("holder") == [holder.pid]
    end(holder)
    assert ledger.live_processes("holder") == []
