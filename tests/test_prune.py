"""Keeps that cost nothing to leave out, and programs that are simpler and as good."""

from __future__ import annotations

from conftest import Project, git

BRANCHY = """\
import os, sys, time
LR = 0.5
BONUS = 0.0
OTHER = 0.0
SLEEP = 0.0
# ideas go here
seed = int(os.environ["AUTORESEARCH_SEED"])
print("METRIC:", 1.0 - max(BONUS, OTHER) + (seed % 3) * 0.0001)
"""


def setting(name: str, value: float, old: float = 0.0) -> str:
    return (
        f"Title: {name} {value}\n\ntrain.py\n<<<<<<< SEARCH\n{name} = {old}\n=======\n"
        f"{name} = {value}\n>>>>>>> REPLACE\n"
    )


def test_a_keep_that_a_later_one_made_useless_is_removed(make_project) -> None:
    project: Project = make_project(train=BRANCHY)
    project.propose(setting("BONUS", 0.1), setting("OTHER", 0.3))
    result = project.run("--iterations=2", "--autoresearch-prune", "--autoresearch-confirm=1")
    assert project.verdicts() == ["keep", "keep", "keep"]
    result.stdout.fnmatch_lines(
        ["*without mutation-0001 BONUS 0.1: removed*", "*confirmed gain  +0.3*"]
    )
    branch = git(project.path, "show", "autoresearch/main:train.py")
    assert "BONUS = 0.0" in branch
    assert "OTHER = 0.3" in branch


def test_a_keep_that_is_needed_stays(make_project) -> None:
    project: Project = make_project(train=BRANCHY.replace("max(BONUS, OTHER)", "(BONUS + OTHER)"))
    project.propose(setting("BONUS", 0.1), setting("OTHER", 0.3))
    project.run("--iterations=2", "--autoresearch-prune", "--autoresearch-confirm=0")
    assert project.verdicts()[:2] == ["keep", "keep"]
    assert "keep" not in project.verdicts()[2:]
    branch = git(project.path, "show", "autoresearch/main:train.py")
    assert "BONUS = 0.1" in branch
    assert "OTHER = 0.3" in branch


def test_less_code_that_is_as_good_is_kept(project: Project) -> None:
    project.propose(
        "Title: no sleep\n\ntrain.py\n<<<<<<< SEARCH\ntime.sleep(SLEEP)\n=======\n>>>>>>> REPLACE\n",
        "Title: no rate\n\ntrain.py\n<<<<<<< SEARCH\nLR = 0.5\n=======\nLR = 0.25\n>>>>>>> REPLACE\n",
    )
    project.run("--iterations=2", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep", "discard"]
    first = next(s for s in project.ledger().slots() if s.kind == "mutation")
    assert first.n == 4
