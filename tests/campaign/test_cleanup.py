"""Nothing that a campaign needs no more stays on the disk, whatever ended it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest
from support.project import Project, git

from pytest_autoresearch.campaign.cleanup import sweep_campaign
from pytest_autoresearch.core.run import Purpose, Run
from pytest_autoresearch.ledger.store import Ledger


def files(folder: Path) -> list[str]:
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*"))


@pytest.mark.parametrize("workers", [(), ("-n2",)])
def test_runs_of_a_command_leave_no_copy_of_the_repository(
    project: Project, workers: Sequence[str]
) -> None:
    project.propose(0.5, 1.5, "undefined_name")
    project.run("--iterations=3", "--autoresearch-confirm=1", *workers)
    assert sorted(project.verdicts()) == ["crash", "discard", "keep"]
    assert files(project.path / ".autoresearch/main/runs") == []
    assert files(project.path / ".autoresearch/tmp") == []


def test_what_a_killed_session_left_is_removed_by_the_next_one(project: Project) -> None:
    project.write("train.py", (project.path / "train.py").read_text().replace("0.0", "3.0"))
    project.commit("slow")
    project.propose(0.5)
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-proposer=replay:ideas"],
        cwd=project.path, stdout=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    campaign = project.path / ".autoresearch/main"
    while not list(campaign.glob("runs/*/copy/train.py")) or not list(campaign.glob("status/*")):
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    temporary = project.path / f".autoresearch/tmp/results.tsv.{process.pid}.tmp"
    temporary.touch()
    (campaign / "runs/notes").mkdir()
    project.write("train.py", (project.path / "train.py").read_text().replace("3.0", "0.0"))
    git(project.path, "commit", "-qam", "fast")
    project.run("--iterations=1", "--autoresearch-confirm=0", "--autoresearch-tag=main")
    assert files(campaign / "runs") == ["notes"]
    assert files(campaign / "status") == []
    assert not temporary.exists()


def record(ledger: Ledger, session: int, folder: Path, verdict: str, purpose: Purpose) -> None:
    """Add an attempt with one run, whose folder holds all that a run can leave."""
    number = ledger.next_number("mutation")
    attempt = ledger.start_attempt(
        session_id=session, worker="main", name=f"mutation-{number}", kind="mutation", number=number
    ).id
    run = ledger.start_run(
        attempt, seed=1, purpose=purpose, device="cpu", concurrency=1, budget="1s"
    )
    place = folder / f"runs/{attempt:05d}-{purpose}-1"
    for name in ("copy/train.py", "work/x", "scratch-1/x", "checkpoint.safetensors", "losses.f32"):
        (place / name).parent.mkdir(parents=True, exist_ok=True)
        (place / name).touch()
    if verdict == "running":
        return
    kept = place / "checkpoint.safetensors" if purpose is Purpose.FIRST else None
    ledger.finish_run(run, Run("ok", score=1.0, checkpoint=kept))
    if verdict == "interrupted":
        ledger.abandon_attempt(attempt, verdict, "killed")
    else:
        ledger.finish_attempt(attempt, verdict=verdict)


def test_only_checkpoints_of_keeps_and_running_attempts_stay(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "main")
    session, folder = ledger.begin_session(driver="d"), tmp_path / ".autoresearch/main"
    for verdict in ("keep", "discard", "interrupted", "baseline", "running"):
        record(ledger, session, folder, verdict, Purpose.FIRST)
    record(ledger, session, folder, "keep", Purpose.CONFIRM)
    sweep_campaign(tmp_path, ledger)
    left = {path.name: files(path) for path in (folder / "runs").iterdir()}
    checkpoint = ["checkpoint.safetensors", "losses.f32"]
    assert left.pop("00005-first-1")[0] == "checkpoint.safetensors"
    assert left == {"00001-first-1": checkpoint, "00004-first-1": checkpoint}


DIE = """
import os, signal, sys
from pathlib import Path
from pytest_autoresearch.core.run import Purpose
from pytest_autoresearch.ledger.store import Ledger
ledger = Ledger.open(Path(sys.argv[1]), "main")
session = ledger.begin_session(driver="d")
attempt = ledger.start_attempt(
    session_id=session, worker="main", name="baseline-1", kind="baseline", number=1
).id
ledger.finish_attempt(attempt, verdict="baseline")
ledger.start_run(
    attempt, seed=500, purpose=Purpose.CONFIRM, device="cpu", concurrency=1, budget="1s"
)
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_confirmation_that_was_killed_does_not_stay_running(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-c", DIE, str(tmp_path)], check=False)
    ledger = Ledger.open(tmp_path, "main")
    assert [run.state for run in ledger.runs()] == ["running"]
    ledger.begin_session(driver="next")
    assert [run.state for run in ledger.runs()] == ["interrupted"]


def test_clean_keeps_the_campaign(project: Project) -> None:
    project.propose(0.5, 0.4)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    leftover = project.path / ".autoresearch/main/runs/00099-first-1/copy"
    leftover.mkdir(parents=True)
    refs = git(project.path, "for-each-ref")
    done = project.command("clean")
    assert (done.returncode, leftover.exists()) == (0, False), done.stderr
    assert git(project.path, "for-each-ref") == refs
    project.run("--iterations=1", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep", "keep"]


def test_clean_all_removes_what_the_campaign_wrote_and_nothing_else(project: Project) -> None:
    project.propose(0.5)
    before = git(project.path, "for-each-ref")
    project.run("--iterations=1", "--autoresearch-confirm=0")
    project.write(".autoresearch/main/mine.txt", "notes")
    project.write(".autoresearch/data/train.bin", "x")
    done = project.command("clean", "--all")
    assert done.returncode == 0, done.stderr
    assert "not written by campaigns: mine.txt" in done.stdout
    assert git(project.path, "for-each-ref") == before
    assert files(project.path / ".autoresearch") == [
        ".gitignore", "data", "data/train.bin", "main", "main/mine.txt", "tmp",
    ]  # fmt: skip
    assert not (project.path / "results.tsv").is_symlink()
    assert (project.path / "train.py").exists()


def test_clean_all_leaves_a_table_that_the_user_changed(project: Project) -> None:
    project.propose(0.5)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    with (project.path / "results.tsv").open("a") as table:
        table.write("# my note\n")
    assert project.command("clean", "--all").returncode == 0
    assert (project.path / "results.tsv").read_text().endswith("# my note\n")


def test_clean_is_refused_while_a_session_runs_and_without_a_campaign(project: Project) -> None:
    done = project.command("clean", "--all")
    assert (done.returncode, "no campaign 'main'" in done.stderr) == (4, True)
    ledger = project.ledger()
    ledger.begin_session(driver="another")
    done = project.command("clean", "--all")
    assert (done.returncode, "is being worked on" in done.stderr) == (4, True)
    assert ledger.sessions()
