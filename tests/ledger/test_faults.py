"""Campaigns that go on after a power cut, a garbage collection, or a git that refuses to write."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import Project, git

from pytest_autoresearch.core.proposal import Edit, Proposal
from pytest_autoresearch.ledger.git import Repository, attempt_ref
from pytest_autoresearch.ledger.repair import Commits
from pytest_autoresearch.ledger.store import Ledger

FILES = ["train.py"]

OPTIONS = ("--autoresearch-confirm=0", "--autoresearch-calibrate=2", "--autoresearch-judge=greedy")


class History:
    """A repository and a ledger with one commit per attempt, written as a campaign does."""

    def __init__(self, root: Path) -> None:
        git(root, "init", "-q", "-b", "main")
        (root / "train.py").write_text("A = 0\n")
        git(root, "add", "-A")
        git(root, "commit", "-qm", "start")
        self.root, self.repository = root, Repository.open(root)
        self.ledger = Ledger.open(root, "t")
        self.commits = Commits(self.repository, self.ledger, FILES)
        self.session = self.ledger.begin_session(driver="d")
        base = self.repository.head()
        self.baseline = self.start("baseline", 1)
        self.ledger.finish_attempt(self.baseline, verdict="baseline", commit=base)
        self.ledger.promote(0, self.baseline, base, {1: 1.0})

    def start(self, kind: str, number: int) -> int:
        return self.ledger.start_attempt(
            session_id=self.session, worker="main", name=f"{kind}-{number:04d}", kind=kind,
            number=number,
        ).id  # fmt: skip

    def add(self, number: int, parent: int, keep: bool = False) -> int:
        attempt = self.start("mutation", number)
        onto = self.ledger.attempt(parent).commit
        before = self.commits.read(onto)["train.py"]
        after = f"A = {number}\n"
        self.ledger.save_proposal(
            attempt, Proposal(f"to {number}", (Edit("train.py", before, after),)), parent
        )
        text = self.repository.describe(f"to {number}", "because", {"Attempt": f"{number}"})
        ref = attempt_ref("t", self.ledger.attempt(attempt).name)
        commit = self.commits.create(onto, {"train.py": after}, text, ref)
        outcome = {"parent": parent, "commit": commit, "commit_object": f"{onto}\n{text}"}
        if keep:
            version = self.ledger.champion().version
            outcome = {"verdict": "keep", **outcome}
            self.ledger.promote(version, attempt, commit, {1: 0.5}, outcome=outcome)
        else:
            self.ledger.finish_attempt(attempt, verdict="discard", **outcome)
        return attempt

    def recorded(self) -> dict[str, str]:
        return {a.name: a.commit for a in self.ledger.attempts()}

    def project(self) -> list[str]:
        champions = [champion.commit for champion in self.ledger.champions()]
        return self.repository.project("t", champions, self.ledger.commits())

    def restore(self) -> list[str]:
        return [attempt.name for attempt in self.commits.remake(self.commits.lost())]


@pytest.fixture
def history(tmp_path: Path) -> History:
    """A keep on a discard, and a discard on the keep."""
    made = History(tmp_path)
    first = made.add(1, made.baseline)
    second = made.add(2, first, keep=True)
    made.add(3, second)
    assert made.project() == []
    return made


def empty(root: Path, *names: str) -> None:
    """Empty loose objects, as a power cut does."""
    for sha in [git(root, "rev-parse", name) for name in names]:
        path = root / ".git/objects" / sha[:2] / sha[2:]
        path.chmod(0o644)
        path.write_bytes(b"")


def test_commits_and_refs_are_synced(history: History) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    log = history.root / "trace"
    script = (
        "from pathlib import Path; from pytest_autoresearch.ledger.git import Repository\n"
        "r = Repository.open(Path('.')); t = r.describe('s', 'b', {})\n"
        "c = r.commit(r.head(), {'train.py': 'A = 9\\n'}, t, 'refs/autoresearch/t/nine')\n"
        "r.project('t', [r.head(), c], {})\n"
    )
    subprocess.run(
        [strace, "-f", "-y", "-e", "trace=fsync", "-o", str(log), sys.executable, "-c", script],
        cwd=history.root, check=True,
    )  # fmt: skip
    synced = log.read_text()
    assert synced.count("/objects/") >= 3  # blob, tree, commit
    assert "refs/autoresearch/t/nine" in synced


@pytest.mark.parametrize(
    "damaged",
    [
        ["refs/autoresearch/t/mutation-0001"],
        ["autoresearch/t", "autoresearch/t^{tree}"],
        ["autoresearch/t:train.py"],
        ["refs/autoresearch/t/mutation-0001", "autoresearch/t", "refs/autoresearch/t/mutation-0003"],
    ],
)  # fmt: skip
def test_the_same_commits_are_made_again(history: History, damaged: list[str]) -> None:
    before = history.recorded()
    empty(history.root, *damaged)
    assert history.commits.lost()
    assert history.restore() == []
    assert history.commits.lost() == []
    assert history.recorded() == before
    texts = [history.repository.read(commit, FILES)["train.py"] for commit in before.values()]
    assert texts == ["A = 0\n", "A = 1\n", "A = 2\n", "A = 3\n"]
    git(history.root, "gc", "-q", "--prune=now")
    assert "missing" not in git(history.root, "fsck")


def test_a_deleted_ref_and_a_gc_lose_nothing(history: History) -> None:
    for name in ("refs/autoresearch/t/mutation-0001", "refs/autoresearch/t/mutation-0003"):
        git(history.root, "update-ref", "-d", name)
    git(history.root, "reflog", "expire", "--expire=now", "--all")
    git(history.root, "gc", "-q", "--prune=now")
    assert [one.name for one in history.commits.lost()] == [
        "mutation-0003"
    ]
    assert history.restore() == []
    assert history.project() == []
    assert git(history.root, "for-each-ref", "refs/autoresearch").count("mutation") == 3


def test_a_commit_whose_making_was_not_recorded_stays_lost(history: History) -> None:
    empty(history.root, "refs/autoresearch/t/mutation-0003")
    with sqlite3.connect(history.ledger.path) as db:
        db.execute("UPDATE attempts SET commit_object = ''")
    assert history.restore() == ["mutation-0003"]


def test_gc_in_a_loop_loses_no_commit(tmp_path: Path) -> None:
    history = History(tmp_path)
    collector = subprocess.Popen(
        ["sh", "-c", "while :; do git gc -q --prune=now; git prune --expire=now; done"],
        cwd=tmp_path, stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip
    try:
        parent = history.baseline
        for number in range(1, 9):
            made = history.add(number, parent, keep=number % 3 == 0)
            parent = made if number % 3 == 0 else parent
    finally:
        os.killpg(collector.pid, signal.SIGKILL)
        collector.wait()
    assert history.restore() == []
    assert history.project() == []
    refs = git(tmp_path, "for-each-ref", "--format=%(objectname)", "refs/autoresearch").split()
    assert refs == [c for name, c in history.recorded().items() if name.startswith("mutation")]
    assert "missing" not in git(tmp_path, "fsck")


def test_a_locked_ref_holds_back_no_other(history: History) -> None:
    made = history.add(4, history.baseline)
    git(history.root, "update-ref", "-d", "refs/autoresearch/t/mutation-0004")
    git(history.root, "update-ref", "-d", "refs/autoresearch/t/mutation-0003")
    lock = history.root / ".git/refs/autoresearch/t/mutation-0003.lock"
    lock.write_bytes(b"")
    [problem] = history.project()
    assert "mutation-0003.lock': File exists" in problem
    commit = history.ledger.attempt(made).commit
    assert git(history.root, "rev-parse", "refs/autoresearch/t/mutation-0004") == commit
    lock.unlink()
    assert history.project() == []


def test_a_commit_is_made_while_its_ref_is_locked(history: History) -> None:
    lock = history.root / ".git/refs/autoresearch/t/mutation-0004.lock"
    lock.write_bytes(b"")
    made = history.add(4, history.baseline)
    assert history.repository.read(history.ledger.attempt(made).commit, FILES)
    assert len(history.project()) == 1
    lock.unlink()
    assert history.project() == []


def test_a_ref_of_an_attempt_without_a_verdict_is_removed(history: History) -> None:
    attempt = history.start("mutation", 4)
    git(history.root, "update-ref", "refs/autoresearch/t/mutation-0004", "HEAD")
    assert history.project() == []
    assert git(history.root, "for-each-ref", "refs/autoresearch/t/mutation-0004")
    history.ledger.abandon_attempt(attempt, "interrupted", "killed")
    assert history.project() == []
    assert git(history.root, "for-each-ref", "refs/autoresearch/t/mutation-0004") == ""


def test_the_users_commit_on_the_branch_is_kept(history: History) -> None:
    git(history.root, "update-ref", "refs/heads/autoresearch/t", "HEAD")
    theirs = git(history.root, "commit-tree", "HEAD^{tree}", "-p", "HEAD", "-m", "mine")
    git(history.root, "update-ref", "refs/heads/autoresearch/t", theirs)
    [problem] = history.project()
    assert "does not belong to this campaign" in problem
    assert git(history.root, "rev-parse", "autoresearch/t") == theirs


def test_a_branch_that_is_checked_out_is_not_moved(history: History) -> None:
    git(history.root, "update-ref", "refs/heads/autoresearch/t", "HEAD")
    git(history.root, "checkout", "-q", "autoresearch/t")
    [problem] = history.project()
    assert "is checked out" in problem
    assert git(history.root, "status", "--porcelain", "-uno") == ""


# ---------------------------------------------------------------------- whole campaigns


def warnings(result: pytest.RunResult) -> list[str]:
    return [line for line in result.outlines if "git does not follow the ledger" in line]


def agree(project: Project) -> None:
    """Check that refs and ledger hold the same commits, and that git can read them."""
    commits = {name: sha for name, sha in project.ledger().commits().items() if sha}
    listing = git(project.path, "for-each-ref", "--format=%(refname:lstrip=3) %(objectname)",
                  "refs/autoresearch/main/mutation*")  # fmt: skip
    assert dict(line.split() for line in listing.splitlines()) == commits
    git(project.path, "gc", "-q", "--prune=now")  # drops emptied objects that were made again
    assert "missing" not in git(project.path, "fsck")


def test_a_power_cut_between_two_sessions(project: Project) -> None:
    project.propose(0.5, 1.5, 0.4, 1.4)
    assert project.run("--iterations=3", *OPTIONS).ret == 0
    empty(project.path, "refs/autoresearch/main/mutation-0002", "autoresearch/main")
    doctor = subprocess.run(
        [sys.executable, "-m", "pytest_autoresearch", "doctor"],
        cwd=project.path, capture_output=True, text=True,
    )  # fmt: skip
    assert "2 lost commits were made again" in doctor.stdout
    empty(project.path, "refs/autoresearch/main/mutation-0002^{tree}")
    result = project.run("--iterations=1", *OPTIONS)
    assert result.ret == 0
    assert project.verdicts() == ["keep", "discard", "keep", "discard"]
    agree(project)


LEGACY = "UPDATE attempts SET commit_object = ''"


def test_a_discard_that_stays_lost_is_treated_as_absent(project: Project) -> None:
    project.propose(0.5, 1.5, 0.4)
    assert project.run("--iterations=2", *OPTIONS).ret == 0
    with sqlite3.connect(project.ledger().path) as db:
        db.execute(LEGACY)
    empty(project.path, "refs/autoresearch/main/mutation-0002")
    result = project.run("--iterations=1", *OPTIONS, "--autoresearch-parents=archive")
    assert result.ret == 0
    assert project.verdicts() == ["keep", "discard", "keep"]


def test_a_champion_that_stays_lost_is_an_error_before_anything_is_spent(project: Project) -> None:
    project.propose(0.5, 0.4)
    assert project.run("--iterations=1", *OPTIONS).ret == 0
    with sqlite3.connect(project.ledger().path) as db:
        db.execute(LEGACY)
    empty(project.path, "autoresearch/main")
    result = project.run("--iterations=1", *OPTIONS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*git has lost commit * of mutation-0001; fetch it from*"])


HOOK = """
import pathlib, shutil, subprocess

def pytest_autoresearch_attempt_finished(record, artifacts):
    if record.name == {name!r}:
        {action}
"""


def at(project: Project, name: str, action: str) -> None:
    """Do something when an attempt has its verdict."""
    text = (project.path / "conftest.py").read_text()
    project.write("conftest.py", text + HOOK.format(name=name, action=action))
    project.commit("act")


def test_locked_refs_are_one_warning_and_caught_up(project: Project) -> None:
    at(project, "mutation-0001", "pathlib.Path('.git/refs/heads/autoresearch/main.lock').touch()")
    project.propose(0.5, 0.4, 0.3, 0.2)
    result = project.run("--iterations=3", *OPTIONS)
    assert result.ret == 0
    assert project.verdicts() == ["keep"] * 3
    assert len(warnings(result)) == 1
    (project.path / ".git/refs/heads/autoresearch/main.lock").unlink()
    assert warnings(project.run("--iterations=1", *OPTIONS)) == []
    tip = git(project.path, "rev-parse", "autoresearch/main")
    assert tip == project.ledger().champion().commit
    agree(project)


def test_a_users_commit_during_the_session_is_kept(project: Project) -> None:
    action = (
        "subprocess.run('git update-ref refs/heads/autoresearch/main $(git -c user.name=u -c"
        " user.email=u@x commit-tree HEAD^{tree} -p autoresearch/main -m mine)', shell=True)"
    )
    at(project, "mutation-0001", action)
    project.propose(0.5, 0.4, 0.3)
    result = project.run("--iterations=3", *OPTIONS)
    assert result.ret == 0
    assert len(warnings(result)) == 1
    assert git(project.path, "log", "-1", "--format=%s", "autoresearch/main") == "mine"


def test_a_ledger_deleted_during_the_session_ends_it(project: Project) -> None:
    at(project, "mutation-0001", "shutil.rmtree('.autoresearch')")
    project.propose(0.5, 0.4, 0.3, 0.2)
    result = project.run("--iterations=4", *OPTIONS)
    assert result.ret == 1
    result.stdout.fnmatch_lines(["*ledger.sqlite was deleted; run: python -m*restore*"])
    assert "mutation-0003" not in result.stdout.str()
    assert "Traceback" not in result.stdout.str() + result.stderr.str()
    restored = subprocess.run(
        [sys.executable, "-m", "pytest_autoresearch", "restore"],
        cwd=project.path, capture_output=True, text=True,
    )  # fmt: skip
    assert restored.returncode == 0, restored.stderr
    assert project.verdicts() == ["keep"]


@pytest.mark.parametrize("action", ["delete", "empty"])
def test_a_lost_ledger_names_restore(project: Project, action: str) -> None:
    project.propose(0.5, 0.4)
    assert project.run("--iterations=1", *OPTIONS).ret == 0
    path = project.ledger().path
    for file in path.parent.glob("ledger.sqlite*"):
        file.unlink()
    if action == "empty":
        path.write_bytes(b"")
    result = project.run("--iterations=1", *OPTIONS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines(["*has lost its ledger*run: python -m pytest_autoresearch restore*"])
    restored = subprocess.run(
        [sys.executable, "-m", "pytest_autoresearch", "restore"],
        cwd=project.path, capture_output=True, text=True,
    )  # fmt: skip
    assert restored.returncode == 0, restored.stderr
    assert project.run("--iterations=1", *OPTIONS).ret == 0
    assert project.verdicts() == ["keep", "keep"]
