"""Proposals drafted ahead, and the control arm."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import pytest
from support.anthropic import context
from support.project import Project
from support.prompts import attempt as past

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import Proposer, ProposerExhausted
from pytest_autoresearch.proposers.draft import WithControl
from pytest_autoresearch.proposers.registry import create

PROPOSER = """\
import json, threading
from pytest_autoresearch import Edit
from pytest_autoresearch.core.proposal import Proposal, ProposerUnavailable

class Thinker:
    name = "thinker"
    slow = True

    def __init__(self, experiment):
        self.calls = 0

    def propose(self, context):
        self.calls += 1
        with open("calls.jsonl", "a") as file:
            file.write(json.dumps({
                "ahead": threading.current_thread() is not threading.main_thread(),
                "hint": "structural change" in context.hint,
                "running": [a.name for a in context.history if a.verdict == "running"],
                "stale": [context.stale[0].title, context.stale[1]] if context.stale else None,
            }) + "\\n")
        if FAIL and not STRICT and threading.current_thread() is not threading.main_thread():
            raise ProposerUnavailable("busy")
        if context.stale and FAIL:
            raise ProposerUnavailable("busy")
        search = "SCORE = 1.0\\n" if STRICT and not context.stale else "# ideas go here\\n"
        score = 0.9 - 0.1 * self.calls if not WORSE else 1.5 + 0.1 * self.calls
        return Proposal(f"idea {self.calls}", (Edit("train.py", search, f"SCORE = {score:.1f}\\n" + search.replace("1.0", f"{score:.1f}")),))

    def close(self):
        pass
"""


SLOW = """\
import threading, time
from pytest_autoresearch import Edit
from pytest_autoresearch import Proposal

class Slow:
    name = "slow"
    slow = True

    def __init__(self, experiment):
        pass

    def propose(self, context):
        if context.attempt > 1 and threading.current_thread() is not threading.main_thread():
            AHEAD
        edit = Edit("train.py", "# ideas go here\\n", "SCORE = 0.5\\n# ideas go here\\n")
        return Proposal("half", (edit,))

    def close(self):
        print("closed in order")
"""


SLEEPY = """\
from pytest_autoresearch import Edit
from pytest_autoresearch import Proposal

class Sleepy:
    name = "sleepy"
    slow = True

    def __init__(self, experiment):
        pass

    def propose(self, context):
        with open("calls.txt", "a+") as file:
            file.write("called\\n")
            file.seek(0)
            number = len(file.readlines())
        edit = Edit("train.py", "SLEEP = 0.0\\n", f"SLEEP = 4.0\\nIDEA = {number}\\n")
        return Proposal(f"idea {number}", (edit,))

    def close(self):
        pass
"""


def run_session(
    project: Project,
    attempts: int,
    *options: str,
    strict: bool = False,
    fail: bool = False,
    worse: bool = False,
) -> list[dict]:
    project.write("thinker.py", f"STRICT, FAIL, WORSE = {strict}, {fail}, {worse}\n{PROPOSER}")
    project.pytester.syspathinsert()
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-proposer=thinker:Thinker", f"--iterations={attempts}",
        "--autoresearch-confirm=0", "-p", "no:cacheprovider", *options,
    )  # fmt: skip
    assert result.ret == 0
    return [json.loads(line) for line in (project.path / "calls.jsonl").read_text().splitlines()]


def test_next_proposal_is_drafted_during_a_run(
    project: Project,
) -> None:
    calls = run_session(project, 3)
    assert [call["ahead"] for call in calls] == [True, True, True]
    assert [call["running"] for call in calls[:2]] == [[], ["mutation-0001"]]
    assert project.verdicts() == ["keep", "keep", "keep"]


def test_draft_that_fits_the_new_champion_is_applied_to_it(project: Project) -> None:
    run_session(project, 2)
    first, second = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert second.parent == first.id


def test_draft_that_does_not_fit_is_sent_back_once(project: Project) -> None:
    calls = run_session(project, 2, strict=True)
    first, second = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert (first.verdict, second.verdict) == ("keep", "keep")
    assert (second.title, second.parent, second.champion_before) == ("idea 3", first.id, first.id)
    assert second.score == pytest.approx(0.6, abs=0.001)
    assert [call["ahead"] for call in calls] == [True, True, False]
    title, reason = calls[2]["stale"]
    assert title == "idea 2"
    assert "does not occur" in reason
    assert calls[2]["running"] == []
    assert drafts(project) == []


def test_draft_that_cannot_be_sent_back_is_trained_on_its_own_parent(project: Project) -> None:
    calls = run_session(project, 2, strict=True, fail=True)
    first, second = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [bool(call["stale"]) for call in calls] == [False, False, True]
    assert (first.verdict, second.title) == ("keep", "idea 2")
    assert second.parent != first.id
    assert second.score == pytest.approx(0.7, abs=0.001)
    assert second.champion_before == first.id


SMALL_GAINS = """\
from pytest_autoresearch import Edit
from pytest_autoresearch import Proposal

class Little:
    name = "little"
    slow = True

    def __init__(self, experiment):
        pass

    def propose(self, context):
        gain = 0.00008 + 0.00001 * context.attempt
        edit = Edit("train.py", "seed = int", f"SCORE -= {gain:.5f}\\nseed = int")
        return Proposal(f"a little, {context.attempt}", (edit,), meta={"on": context.parent.name})

    def close(self):
        pass
"""


def test_draft_for_a_discard_builds_on_it_under_the_same_champion(
    project: Project,
) -> None:
    project.write("little.py", SMALL_GAINS)
    project.write(
        "conftest.py",
        (project.path / "conftest.py").read_text()
        + "\nfrom pytest_autoresearch.judge import parents as policy\npolicy.STACKED, policy.BEST = 1.0, 1\n",
    )
    project.commit()
    project.pytester.syspathinsert()
    result = project.run(
        "--iterations=3", "--autoresearch-proposer=little:Little", "--autoresearch-confirm=0"
    )
    assert result.ret == 0
    first, second, third = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    # the second was drafted while the first trained, the third while the second did
    assert (second.meta["on"], second.parent) == ("baseline-1", first.parent)
    assert (third.meta["on"], third.parent) == (first.name, first.id)
    assert (second.gain or 0) > (first.gain or 0) > 0


def test_failed_draft_is_requested_again(project: Project) -> None:
    calls = run_session(project, 2, fail=True)
    assert [call["ahead"] for call in calls] == [True, False, True, False]
    assert len(project.verdicts()) == 2


def test_draft_gets_the_hint(project: Project) -> None:
    project.write(
        "conftest.py",
        (project.path / "conftest.py").read_text()
        + "\nfrom pytest_autoresearch.judge import parents as policy\npolicy.PATIENCE = 1\n",
    )
    project.commit()
    calls = run_session(project, 3, worse=True)
    assert [call["ahead"] for call in calls] == [True, True, True]
    assert [call["hint"] for call in calls] == [False, False, True]


@pytest.mark.parametrize("ahead", ["time.sleep(600)", "raise RuntimeError('a bug')"])
def test_stopping_session_does_not_wait_for_a_draft(project: Project, ahead: str) -> None:
    project.write("slow.py", SLOW.replace("AHEAD", ahead))
    project.pytester.syspathinsert()
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-proposer=slow:Slow", "--iterations=3",
        "--autoresearch-target=0.6", "--autoresearch-confirm=0", "-s", "-p", "no:cacheprovider",
        timeout=120,  # the draft sleeps for 600 s
    )  # fmt: skip
    assert result.ret == 0
    assert project.verdicts() == ["keep"]
    assert "closed in order" in result.stdout.str()


def test_killed_session_loses_no_finished_draft(project: Project) -> None:
    project.write("sleepy.py", SLEEPY)
    command = [
        sys.executable, "-m", "pytest", "--autoresearch", "--autoresearch-proposer=sleepy:Sleepy",
        "--autoresearch-confirm=0", "-p", "no:cacheprovider",
    ]  # fmt: skip
    session = subprocess.Popen([*command, "--iterations=3"], cwd=project.path)
    try:
        for _ in range(600):
            time.sleep(0.1)
            if (project.path / "calls.txt").exists() and "idea 2" in drafts(project):
                break
        assert drafts(project) == ["idea 2"]
    finally:
        session.kill()
        session.wait()
    subprocess.run([*command, "--iterations=2"], cwd=project.path, check=True, timeout=120)
    attempts = [attempt for attempt in project.ledger().attempts() if attempt.kind == "mutation"]
    assert sorted(attempt.title for attempt in attempts if attempt.state == "done") == [
        "idea 1",
        "idea 2",
    ]
    calls = (project.path / "calls.txt").read_text().splitlines()
    assert len(calls) == 2  # no new draft while one was stored


def drafts(project: Project) -> list[str]:
    """Return the titles of drafts that no attempt uses."""
    ledger = project.ledger()
    titles = [json.loads(row["body"])["title"] for row in ledger._rows(
        "SELECT body FROM proposals WHERE state IN ('ahead', 'drafted')")]  # fmt: skip
    ledger.close()
    return titles


class Named(Proposer):
    slow = True

    def __init__(self, name: str) -> None:
        self.name, self.closed = name, False

    def propose(self, context):
        return self.name

    def close(self) -> None:
        self.closed = True


def at(number: int, *controls: str):
    history = [past(n, verdict, proposer="gp") for n, verdict in enumerate(controls, 2)]
    return replace(context(), attempt=number, history=[*context().history, *history])


def test_control_arm_takes_every_kth_attempt(tmp_path: Path) -> None:
    model, search = Named("model"), Named("gp")
    arms = WithControl(model, search, 4)
    assert [arms.propose(at(n)) for n in range(1, 9)] == ["model"] * 3 + ["gp"] + ["model"] * 3 + [
        "gp"
    ]
    assert [arms.ahead(at(n)) for n in range(1, 9)] == [True] * 3 + [False] + [True] * 3 + [False]
    arms.close()
    assert model.closed
    assert search.closed
    with pytest.raises(ValueError, match="2nd attempt"):
        WithControl(create("ratchet", experiment=Experiment(), root=tmp_path), search, 1)


@pytest.mark.parametrize(
    ("verdicts", "goes_on"),
    [
        (["discard"] * 4, True),
        (["discard"] * 5, False),
        (["crash", "discard", "invalid", "discard", "duplicate", "discard"], False),
        (["discard"] * 4 + ["keep"] + ["discard"] * 9, True),
    ],
)
def test_control_arm_ends_without_a_keep_in_five(verdicts: list[str], goes_on: bool) -> None:
    arms = WithControl(Named("model"), Named("gp"), 4)
    assert (arms.propose(at(40, *verdicts)) == "gp") == goes_on
    assert arms.ahead(at(40, *verdicts)) != goes_on


def test_control_is_asked_at_its_own_slot(project: Project) -> None:
    calls = run_session(project, 4, "--autoresearch-control=2")
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [a.proposer for a in attempts] == ["", "gp", "", "gp"]
    assert [call["ahead"] for call in calls] == [True, True]
    keeps = [a.id for a in attempts if a.verdict == "keep"]
    assert keeps
    for attempt in attempts:  # made for the champion of its slot
        assert attempt.parent == attempt.champion_before


def test_main_proposer_replaces_an_exhausted_control(tmp_path: Path) -> None:
    idea = tmp_path / "1.txt"
    idea.write_text(
        "train.py\n<<<<<<< SEARCH\nmodel.run()\n=======\nmodel.fit()\n>>>>>>> REPLACE\n"
    )
    main = create(f"replay:{tmp_path}", experiment=Experiment(), root=tmp_path)
    search = create("gp", experiment=Experiment(), root=tmp_path)
    given = replace(context(), attempt=2, files={"train.py": "import model\nmodel.run()\n"})
    with pytest.raises(ProposerExhausted):
        search.propose(given)
    arms = WithControl(main, search, 2)
    assert arms.fixed_order
    assert arms.propose(given).title == "1"
    arms.close()
