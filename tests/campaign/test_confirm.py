"""Confirmation of a campaign on fresh seeds, and the verify command."""

from __future__ import annotations

import math
import re
import signal
import subprocess
import sys
import time

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project

from pytest_autoresearch.core.experiment import Metric
from pytest_autoresearch.core.records import Gain
from pytest_autoresearch.judge.confirmation import paired_gain
from pytest_autoresearch.judge.noise import noise_of
from pytest_autoresearch.judge.verdicts import Noise

LUCKY = 'SCORE = 0.9 if int(os.environ["AUTORESEARCH_SEED"]) < 400 else 1.5'


def idea(line: str) -> str:
    return (
        f"Title: an idea\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
        f"{line}\n# ideas go here\n>>>>>>> REPLACE\n"
    )


NOISY = """\
import os
SCORE = 1.0
# ideas go here
seed = int(os.environ["AUTORESEARCH_SEED"])
print("METRIC:", SCORE + (seed * 7919 + int(SCORE * 1e6)) * 2654435761 % 997 * 0.000004)
"""


def test_session_page_and_verify_print_the_same_interval(make_project) -> None:
    project: Project = make_project(train=NOISY)
    project.propose(0.96, 0.9585, 0.9582, 0.9579)
    session = project.run("--iterations=4", "-n2", timeout=300)
    ledger = project.ledger()
    noise = noise_of(ledger.attempts(), ledger.champions(), Metric())
    assert noise.sigma > 1e-4, "the scatter of the seeds"
    runs = len(ledger.runs())
    page = (project.path / ".autoresearch/report.html").read_text()
    verified = project.command("verify")
    assert verified.returncode == 0, verified.stderr
    fresh = [run for run in ledger.runs()[runs:] if run.purpose == "confirm"]
    assert {run.attempt_id for run in fresh}.isdisjoint(
        {ledger.champions()[0].attempt_id, ledger.champions()[-1].attempt_id}
    )
    ledger.close()
    interval = r"([+-]\d\.\d+ \[[+-]\d\.\d+, [+-]\d\.\d+\])"
    printed = [
        re.search(f"gain +{interval}", text)
        for text in (session.stdout.str(), verified.stdout, page)
    ]
    assert all(printed)
    assert len({match[1] for match in printed if match}) == 1


def test_a_real_gain_is_confirmed_on_fresh_seeds(project: Project) -> None:
    project.propose(0.9, 0.8)
    result = project.run("--iterations=2")
    result.stdout.fnmatch_lines(
        ["*score 0.8 on fresh seed 500: val_bpb 0.8*", "*confirmed gain  +0.2*2 fresh seed*"]
    )
    confirmation = project.ledger().confirmation()
    assert confirmation is not None
    assert confirmation.champion == 3
    assert confirmation.confirmed is not None
    assert confirmation.confirmed.gain == pytest.approx(0.2)
    assert confirmation.confirmed.low < 0.2 < confirmation.confirmed.high


def test_gain_on_the_selected_seeds_only_is_not_confirmed(project: Project) -> None:
    project.propose(idea(LUCKY))
    result = project.run("--iterations=1")
    assert project.verdicts() == ["keep"]
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*lost gain  -0.5*", "*lost      mutation-0001 an idea*"])
    done = project.command("verify")
    assert done.returncode == 1
    assert "keeps confirmed on fresh seeds: 0 of 1" in done.stdout


def test_confirming_changes_neither_champion_nor_its_scores(project: Project) -> None:
    project.propose(idea(LUCKY))
    project.run("--iterations=1")
    champion = project.ledger().champion()
    assert champion.version == 2
    assert all(seed < 400 for seed in champion.scores)


def test_confirmed_champion_is_not_trained_again(project: Project) -> None:
    project.propose(0.9, 1.2)
    project.run("--iterations=1")
    runs = len(project.ledger().runs())
    project.run("--iterations=1")
    assert len(project.ledger().runs()) == runs + 1
    assert project.command("verify", "--seeds=2").returncode == 0
    assert len(project.ledger().runs()) == runs + 1


def test_verify_examines_every_keep(project: Project) -> None:
    project.propose(0.9, idea(LUCKY.replace("0.9", "0.8")), 0.7)
    project.run("--iterations=3", "--autoresearch-confirm=0")
    assert project.ledger().confirmation() is None
    done = project.command("verify", "--campaign")
    assert done.returncode == 0, done.stderr
    assert re.search(r"3 keeps: 8 to 24 trainings of about \d+ s each", done.stdout)
    assert "keeps confirmed on fresh seeds: 2 of 3" in done.stdout
    assert "lost      mutation-0002" in done.stdout


def test_verify_without_keeps_has_nothing_to_confirm(project: Project) -> None:
    project.propose(1.5)
    project.run("--iterations=1")
    done = project.command("verify")
    assert (done.returncode, done.stdout.strip()) == (
        0,
        "nothing was kept, so there is nothing to confirm",
    )


def test_reproduced_score_stands(project: Project) -> None:
    project.propose(0.5)
    project.run("--iterations=1")
    done = project.command("verify", "mutation-0001")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip().endswith("\nstands")


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["verify", "mutation-0099"], "has no score in this campaign"),
        (["verify", "--tag=other"], "no campaign 'other'"),
        (["verify", "mutation-0001", "--campaign"], "not both"),
        (["verify", "--seeds=0"], "must be 1 or more"),
    ],
)
def test_verify_names_invalid_arguments(project: Project, args: list[str], said: str) -> None:
    project.propose(1.5)
    project.run("--iterations=1")
    done = project.command(*args)
    assert done.returncode not in (0, 1)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


@given(
    st.lists(st.floats(-1, 1), min_size=1, max_size=2) | st.lists(st.floats(-1, 1), min_size=6),
    st.floats(1e-6, 1),
    st.floats(2, 200),
)
def test_interval_contains_the_mean_and_narrows_with_pairs(gains, sigma, freedom) -> None:
    noise = Noise(sigma, freedom)
    once, twice = paired_gain(gains, noise), paired_gain(gains * 2, noise)
    assert once is not None
    assert twice is not None
    assert once.low <= once.gain <= once.high
    assert twice.high - twice.low <= once.high - once.low
    assert twice.gain == pytest.approx(once.gain, abs=1e-9)


def test_six_pairs_alone_give_the_interval() -> None:
    gains = [0.01, 0.02, 0.03, 0.02, 0.01, 0.03]
    quiet, loud = paired_gain(gains, Noise(1e-6, 100)), paired_gain(gains, Noise(1.0, 100))
    assert quiet == loud
    assert quiet is not None
    error = 0.0089443 / math.sqrt(6)
    assert quiet.high - quiet.gain == pytest.approx(2.5706 * error, rel=1e-3)
    assert quiet.standing == "confirmed"


def test_standing_is_the_interval() -> None:
    gains = {"confirmed": Gain(2, 1, 3, 2), "open": Gain(1, -1, 3, 2), "lost": Gain(-2, -3, -1, 2)}
    assert {word: gain.standing for word, gain in gains.items()} == {w: w for w in gains}


def test_paired_gain_without_pairs_is_none() -> None:
    assert paired_gain([], Noise(0.1, 8)) is None


def test_scattered_pairs_widen_the_interval() -> None:
    calm = paired_gain([0.1, 0.1, 0.1, 0.1], Noise(0.01, 8))
    wild = paired_gain([0.3, -0.1, 0.3, -0.1], Noise(0.01, 8))
    assert calm is not None
    assert wild is not None
    assert wild.high - wild.low > 5 * (calm.high - calm.low)
    assert wild.low < 0 < calm.low


def test_simplification_with_an_equal_score_holds(project: Project) -> None:
    # it is behind by 0.000001 on every seed, and simpler by a statement
    worse = (
        "Title: no sleep\n\ntrain.py\n<<<<<<< SEARCH\nSCORE = 1.0\n=======\nSCORE = 1.000001\n"
        ">>>>>>> REPLACE\n<<<<<<< SEARCH\ntime.sleep(SLEEP)\n=======\n>>>>>>> REPLACE\n"
    )
    project.propose(worse)
    result = project.run("--iterations=1")
    assert project.verdicts() == ["keep"]
    result.stdout.fnmatch_lines(["*confirmed mutation-0001 no sleep: kept with -0.000001*"])


def test_retrained_score_may_differ_within_the_noise(make_project) -> None:
    noisy = (
        "import os, time\nSCORE = 1.0\n# ideas go here\n"
        'print("METRIC:", SCORE + (int(os.environ["AUTORESEARCH_SEED"]) + time.time_ns() % 3)'
        " * 0.00003)\n"
    )
    project: Project = make_project(train=noisy)
    project.propose(0.5)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    done = project.command("verify", "mutation-0001")
    assert done.returncode == 0, done.stdout
    assert "now (trained again): stands" in done.stdout


def test_score_without_recorded_runs_cannot_be_verified(project: Project) -> None:
    project.propose(0.5)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    ledger = project.ledger()
    with ledger._write() as db:
        db.execute("DELETE FROM runs WHERE purpose != 'calibrate'")
    ledger.close()
    done = project.command("verify", "mutation-0001")
    assert (done.returncode, "no run of" in done.stderr) == (4, True)


def test_verify_names_a_campaign_that_never_began(project: Project) -> None:
    project.ledger().close()
    done = project.command("verify")
    assert (done.returncode, "ended before it began" in done.stderr) == (4, True)
    assert "Traceback" not in done.stderr


def test_verify_refuses_a_changed_metric(project: Project) -> None:
    project.propose(0.5)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    declared = (project.path / "conftest.py").read_text()
    project.write("conftest.py", declared.replace("'min'", "'max'"))
    done = project.command("verify")
    assert (done.returncode, "another metric" in done.stderr) == (4, True)


def test_interrupted_verification_resumes(project: Project) -> None:
    slow = 'SLEEP = 8.0 if os.environ["AUTORESEARCH_SEED"] == "501" else 0.0'
    project.propose(idea(f"{slow}\nSCORE = 0.5"))
    project.run("--iterations=1", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep"]
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest_autoresearch", "verify"],
        cwd=project.path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    ledger, ends = project.ledger(), time.monotonic() + 60
    while not any(
        t.seed == 501 and t.state == "running" and t.attempt_id > 3 for t in ledger.runs()
    ):
        assert time.monotonic() < ends
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=60)
    assert (process.returncode, said.strip()) == (4, "interrupted; run it again to go on")
    assert {t.state for t in ledger.runs()} == {"done", "interrupted"}
    assert project.command("verify").returncode == 0
    ledger.close()
