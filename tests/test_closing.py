"""A campaign's end: what was kept is confirmed on seeds that nobody chose by."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from conftest import Project
from pytest_autoresearch.closing import paired_gain
from pytest_autoresearch.judge import Noise

LUCKY = 'SCORE = 0.9 if int(os.environ["AUTORESEARCH_SEED"]) < 400 else 1.5'


def idea(line: str) -> str:
    return (
        f"Title: an idea\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
        f"{line}\n# ideas go here\n>>>>>>> REPLACE\n"
    )


def command(project: Project, *args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "pytest_autoresearch", *args],
        cwd=project.path, capture_output=True, text=True, timeout=120,
    )  # fmt: skip


def test_a_real_gain_is_confirmed_on_fresh_seeds(project: Project) -> None:
    project.propose(0.9, 0.8)
    result = project.run("--iterations=2")
    result.stdout.fnmatch_lines(
        ["*score 0.8 on fresh seed 500: val_bpb 0.8*", "*confirmed gain  +0.2*2 fresh seed*"]
    )
    closing = project.ledger().meta("closing")
    assert closing["champion"] == 3
    assert closing["confirmed"]["gain"] == pytest.approx(0.2)
    assert closing["confirmed"]["low"] < 0.2 < closing["confirmed"]["high"]


def test_a_gain_that_only_the_chosen_seeds_show_falls(project: Project) -> None:
    project.propose(idea(LUCKY))
    result = project.run("--iterations=1")
    assert project.verdicts() == ["keep"]
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*confirmed gain  -0.5*", "*FALLS  mutation-0001 an idea*"])
    done = command(project, "verify")
    assert done.returncode == 1
    assert "keeps that hold on fresh seeds: 0 of 1" in done.stdout


def test_confirming_changes_neither_champion_nor_its_scores(project: Project) -> None:
    project.propose(idea(LUCKY))
    project.run("--iterations=1")
    champion = project.ledger().champion()
    assert champion.version == 2
    assert all(seed < 400 for seed in champion.scores)


def test_what_is_confirmed_is_not_trained_again(project: Project) -> None:
    project.propose(0.9, 1.2)
    project.run("--iterations=1")
    trials = len(project.ledger().trials())
    project.run("--iterations=1")
    assert len(project.ledger().trials()) == trials + 1
    assert command(project, "verify", "--seeds=2").returncode == 0
    assert len(project.ledger().trials()) == trials + 1


def test_verify_examines_every_keep(project: Project) -> None:
    project.propose(0.9, idea(LUCKY.replace("0.9", "0.8")), 0.7)
    project.run("--iterations=3", "--autoresearch-confirm=0")
    assert project.ledger().meta("closing") is None
    done = command(project, "verify", "--campaign")
    assert done.returncode == 0, done.stderr
    assert "keeps that hold on fresh seeds: 2 of 3" in done.stdout
    assert "FALLS  mutation-0002" in done.stdout


def test_verify_of_a_campaign_without_keeps_says_so(project: Project) -> None:
    project.propose(1.5)
    project.run("--iterations=1")
    done = command(project, "verify")
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "nothing was kept, so there is nothing to confirm",
    )


def test_a_kept_score_that_repeats_stands(project: Project) -> None:
    project.propose(0.5)
    project.run("--iterations=1")
    done = command(project, "verify", "mutation-0001")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("\nstands")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["verify", "mutation-0099"], "no scored slot"),
        (["verify", "--tag=other"], "no campaign 'other'"),
        (["verify", "mutation-0001", "--campaign"], "not both"),
        (["verify", "--seeds=0"], "must be 1 or more"),
    ],
)
def test_what_cannot_be_verified_is_named(project: Project, args: list[str], said: str) -> None:
    project.propose(1.5)
    project.run("--iterations=1")
    done = command(project, *args)
    assert done.returncode not in (0, 1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=8),
    st.floats(1e-6, 1),
    st.floats(2, 200),
)
def test_the_interval_holds_the_mean_and_narrows_with_pairs(gains, sigma, freedom) -> None:
    noise = Noise(sigma, freedom)
    once, twice = paired_gain(gains, noise), paired_gain(gains * 2, noise)
    assert once is not None
    assert twice is not None
    assert once.low < once.gain < once.high
    assert twice.high - twice.low < once.high - once.low
    assert twice.gain == pytest.approx(once.gain, abs=1e-9)


def test_there_is_no_gain_without_pairs() -> None:
    assert paired_gain([], Noise(0.1, 8)) is None
