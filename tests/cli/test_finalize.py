"""The finalize command."""

from __future__ import annotations

import subprocess

import pytest
from support.project import Project, git

TRAIN = """\
import os
A = 0.0
B = 0.0
C = 0.0
seed = int(os.environ["AUTORESEARCH_SEED"])
print("METRIC:", 1.0 - max(A, B) - C + (seed % 3) * 0.0001)
"""


def setting(name: str, value: float) -> str:
    return (
        f"Title: {name} to {value}\nHypothesis: because\n\ntrain.py\n<<<<<<< SEARCH\n{name} = 0.0\n"
        f"=======\n{name} = {value}\n>>>>>>> REPLACE\n"
    )


@pytest.fixture
def campaign_project(make_project) -> Project:
    project: Project = make_project(train=TRAIN)
    project.propose(setting("A", 0.1), setting("B", 0.3), setting("C", 0.2))
    project.run("--iterations=3", "--autoresearch-confirm=1")
    assert project.verdicts() == ["keep", "keep", "keep"]
    return project


def subjects(project: Project, branch: str = "research/main") -> list[str]:
    return git(project.path, "log", "--format=%s", "--reverse", f"main..{branch}").splitlines()


def test_each_keep_becomes_a_commit_with_its_gain(campaign_project: Project) -> None:
    done = campaign_project.command("finalize")
    assert done.returncode == 0, done.stderr
    assert subjects(campaign_project) == ["A to 0.1", "B to 0.3", "C to 0.2"]
    message = git(campaign_project.path, "log", "-1", "--format=%B", "research/main")
    assert "gain +0.200000" in message
    assert "because" in message
    assert git(campaign_project.path, "diff", "autoresearch/main", "research/main") == ""
    assert "git push -u origin research/main" in done.stdout
    body = (campaign_project.path / ".autoresearch/main/pull-request.md").read_text()
    assert "gain on fresh seeds: +0.5" in body


def test_ablated_keeps_are_not_in_the_history(make_project) -> None:
    project: Project = make_project(train=TRAIN)
    project.propose(setting("A", 0.1), setting("B", 0.3))
    project.run("--iterations=2", "--autoresearch-ablate", "--autoresearch-confirm=0")
    assert project.command("finalize").returncode == 0
    assert subjects(project) == ["B to 0.3"]
    assert git(project.path, "diff", "autoresearch/main", "research/main") == ""


def test_keeps_are_grouped_and_squashed(campaign_project: Project) -> None:
    assert campaign_project.command("finalize", "--group=mutation-0001,mutation-0002").returncode == 0
    assert subjects(campaign_project) == ["2 steps: A to 0.1, …", "C to 0.2"]
    assert campaign_project.command("finalize", "--squash", "--branch=one").returncode == 0
    assert subjects(campaign_project, "one") == ["3 steps: A to 0.1, …"]
    assert git(campaign_project.path, "diff", "research/main", "one") == ""


def test_the_working_tree_is_not_touched(campaign_project: Project) -> None:
    (campaign_project.path / "untracked.txt").write_text("mine")
    before = git(campaign_project.path, "rev-parse", "HEAD")
    assert campaign_project.command("finalize").returncode == 0
    assert git(campaign_project.path, "rev-parse", "HEAD") == before
    assert git(campaign_project.path, "symbolic-ref", "--short", "HEAD") == "main"
    assert (campaign_project.path / "untracked.txt").read_text() == "mine"
    assert (campaign_project.path / "train.py").read_text() == TRAIN.replace("METRIC", "val_bpb")


def test_the_index_is_not_written(campaign_project: Project) -> None:
    program, index = campaign_project.path / "train.py", campaign_project.path / ".git/index"
    program.write_bytes(program.read_bytes())  # other times, which git diff would note
    before = index.read_bytes(), index.stat().st_mtime_ns
    assert campaign_project.command("finalize").returncode == 0
    assert (index.read_bytes(), index.stat().st_mtime_ns) == before


def dirty(project: Project) -> None:
    (project.path / "conftest.py").write_text((project.path / "conftest.py").read_text() + "\n")


def taken(project: Project) -> None:
    git(project.path, "branch", "research/main")


def foreign(project: Project) -> None:
    git(project.path, "update-ref", "refs/heads/autoresearch/main", "HEAD~0")
    tree = git(project.path, "rev-parse", "HEAD^{tree}")
    commit = git(project.path, "commit-tree", tree, "-p", "HEAD", "-m", "not ours")
    git(project.path, "update-ref", "refs/heads/autoresearch/main", commit)


@pytest.mark.parametrize(
    ("damage", "args", "said"),
    [
        (dirty, (), "the working tree has changes (conftest.py)"),
        (taken, (), "branch research/main exists"),
        (foreign, (), "does not belong to this campaign"),
        (lambda p: None, ("--tag=other",), "no campaign 'other'"),
        (lambda p: None, ("--group=mutation-0001,mutation-0003",), "only adjacent keeps"),
        (lambda p: None, ("--group=mutation-0001,mutation-0009",), "mutation-0009 is not a keep"),
        (lambda p: None, ("--branch=bad..name",), "bad..name"),
    ],
)
def test_refusal_names_the_reason_and_creates_nothing(
    campaign_project: Project, damage, args, said: str
) -> None:
    damage(campaign_project)
    before = git(campaign_project.path, "for-each-ref", "--format=%(refname) %(objectname)")
    done = campaign_project.command("finalize", *args)
    assert done.returncode == 4
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert git(campaign_project.path, "for-each-ref", "--format=%(refname) %(objectname)") == before


def test_a_campaign_without_keeps_has_nothing_to_finalize(project: Project) -> None:
    project.propose(1.5)
    project.run("--iterations=1")
    done = project.command("finalize")
    assert (done.returncode, "nothing was kept" in done.stderr) == (4, True)


def test_hostile_title_is_quoted_for_shell_and_page(make_project) -> None:
    project: Project = make_project(train=TRAIN)
    title = "it's $(touch pwned) `touch pwned` <img src=x> fixes"
    project.propose(setting("A", 0.1).replace("A to 0.1", title))
    project.run("--iterations=1", "--autoresearch-confirm=0")
    done = project.command("finalize")
    assert done.returncode == 0, done.stderr
    [command] = [line for line in done.stdout.splitlines() if line.startswith("pull request:")]
    script = "gh() { printf '%s\\n' \"$@\"; }; " + command.removeprefix("pull request:")
    said = subprocess.run(
        ["bash", "-c", script], cwd=project.path, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    assert said[said.index("--title") + 1] == title
    assert not (project.path / "pwned").exists()
    assert "<img" not in (project.path / ".autoresearch/main/pull-request.md").read_text()


def test_failure_leaves_no_branch(campaign_project: Project) -> None:
    (campaign_project.path / ".autoresearch/main/pull-request.md").mkdir()
    before = git(campaign_project.path, "for-each-ref")
    done = campaign_project.command("finalize")
    assert done.returncode == 4
    assert "pull-request.md: Is a directory; nothing was created" in done.stderr
    assert git(campaign_project.path, "for-each-ref") == before


def test_confirmation_of_an_earlier_champion_is_not_claimed(make_project) -> None:
    project: Project = make_project(train=TRAIN)
    project.propose(setting("A", 0.1), setting("C", 0.2))
    project.run("--iterations=1", "--autoresearch-confirm=1")
    project.run("--iterations=1", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep", "keep"]
    assert project.command("finalize").returncode == 0
    body = (project.path / ".autoresearch/main/pull-request.md").read_text()
    assert "- not confirmed on fresh seeds" in body
    assert "- gain on fresh seeds" not in body
    assert "on fresh seeds +0.1" in body  # of the first keep, which is still what it was
