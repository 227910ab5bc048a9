"""Whether the keeps survive other conditions."""

from __future__ import annotations

import pytest
from support.project import Project


@pytest.fixture
def campaign_project(project: Project) -> Project:
    project.propose(
        "Title: better\n\ntrain.py\n<<<<<<< SEARCH\nSCORE = 1.0\n=======\nSCORE = 0.9\n>>>>>>> REPLACE\n"
    )
    project.run("--iterations=1", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep"]
    return project


def test_gain_at_a_larger_scale_transfers(campaign_project: Project) -> None:
    done = campaign_project.command("transfer", "--budget=4", "--scale=SCORE=2")
    assert done.returncode == 0, done.stderr
    assert "budget 1200s, SCORE x 2" in done.stdout
    assert "transfers: +0.200000 val_bpb over 2 seed(s)" in done.stdout
    ledger = campaign_project.ledger()
    (told,) = ledger.transfers()
    assert (told.where, told.champion, told.n) == ("budget 1200s, SCORE x 2", 2, 2)
    ledger.close()


def test_reversed_gain_does_not_transfer(campaign_project: Project) -> None:
    assert campaign_project.command("transfer", "--scale=SCORE=-1").returncode == 1


def test_unknown_constant_is_named_with_the_known_ones(campaign_project: Project) -> None:
    done = campaign_project.command("transfer", "--scale=WIDTH=2")
    assert done.returncode == 4
    assert "LR, SLEEP, SCORE" in done.stderr
    assert "Traceback" not in done.stderr


def test_without_a_keep_there_is_nothing_to_transfer(project: Project) -> None:
    project.propose(1.5)
    project.run("--iterations=1")
    done = project.command("transfer")
    assert (done.returncode, "nothing was kept" in done.stderr) == (4, True)


@pytest.mark.parametrize(
    "args", [["--budget=nan"], ["--budget=inf"], ["--scale=SCORE=nan"], ["--scale=SCORE=inf"]]
)
def test_invalid_numbers_are_refused(project: Project, args: list[str]) -> None:
    done = project.command("transfer", *args)
    assert done.returncode == 2
    assert "Traceback" not in done.stderr


def test_more_seeds_than_the_calibration_are_trained(campaign_project: Project) -> None:
    done = campaign_project.command("transfer", "--budget=1", "--seeds=4")
    assert done.returncode == 0, done.stderr
    assert "over 4 seed(s)" in done.stdout


def test_failing_baseline_is_not_compared(make_project) -> None:
    train = "import os\nWIDTH = 8\nSCORE = 1.0\nprint('METRIC:', SCORE / (WIDTH < 9))\n"
    project: Project = make_project(train=train)
    project.propose(
        "Title: better\n\ntrain.py\n<<<<<<< SEARCH\nSCORE = 1.0\n=======\nSCORE = 0.9\n"
        ">>>>>>> REPLACE\n"
    )
    project.run("--iterations=1", "--autoresearch-confirm=0")
    done = project.command("transfer", "--scale=WIDTH=2")
    assert (done.returncode, "the baseline has no score there" in done.stderr) == (4, True)
