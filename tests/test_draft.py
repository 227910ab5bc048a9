"""Proposals drafted ahead, and the control arm."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from conftest import Project
from pytest_autoresearch.experiment import Experiment
from pytest_autoresearch.proposers.arms import WithControl
from pytest_autoresearch.proposers.registry import create

PROPOSER = """\
import json, threading
from pytest_autoresearch.mutation import Edit
from pytest_autoresearch.proposers import Proposal, ProposerUnavailable

class Thinker:
    name = "thinker"
    thinks = True

    def __init__(self, experiment):
        self.calls = 0

    def propose(self, context):
        self.calls += 1
        with open("calls.jsonl", "a") as file:
            file.write(json.dumps({
                "ahead": threading.current_thread() is not threading.main_thread(),
                "running": [a.name for a in context.history if a.verdict == "running"],
            }) + "\\n")
        if FAIL and threading.current_thread() is not threading.main_thread():
            raise ProposerUnavailable("busy")
        search = "SCORE = 1.0\\n" if STRICT else "# ideas go here\\n"
        score = 0.9 - 0.1 * self.calls
        return Proposal(f"idea {self.calls}", (Edit("train.py", search, f"SCORE = {score:.1f}\\n" + search.replace("1.0", f"{score:.1f}")),))

    def close(self):
        pass
"""


def night(project: Project, slots: int, *, strict: bool = False, fail: bool = False) -> list[dict]:
    project.write("thinker.py", f"STRICT, FAIL = {strict}, {fail}\n{PROPOSER}")
    project.pytester.syspathinsert()
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-proposer=thinker:Thinker", f"--iterations={slots}",
        "--autoresearch-confirm=0", "-p", "no:cacheprovider",
    )  # fmt: skip
    assert result.ret == 0
    return [json.loads(line) for line in (project.path / "calls.jsonl").read_text().splitlines()]


def test_the_next_proposal_is_drafted_while_a_trial_runs_and_none_past_the_last(
    project: Project,
) -> None:
    calls = night(project, 3)
    assert [call["ahead"] for call in calls] == [False, True, True]
    assert calls[1]["running"] == ["mutation-0001"]
    assert project.verdicts() == ["keep", "keep", "keep"]


def test_a_draft_that_fits_the_new_champion_is_applied_to_it(project: Project) -> None:
    night(project, 2)
    first, second = [s for s in project.ledger().slots() if s.kind == "mutation"]
    assert second.parent == first.id


def test_a_draft_that_no_longer_fits_is_trained_on_the_files_it_was_made_for(
    project: Project,
) -> None:
    night(project, 2, strict=True)
    first, second = [s for s in project.ledger().slots() if s.kind == "mutation"]
    assert first.verdict == "keep"
    assert second.parent != first.id
    assert second.score == pytest.approx(0.7, abs=0.001)
    assert second.champion_before == first.id


def test_a_provider_that_failed_ahead_is_asked_again_when_its_turn_comes(project: Project) -> None:
    calls = night(project, 2, fail=True)
    assert [call["ahead"] for call in calls] == [False, True, False]
    assert len(project.verdicts()) == 2


def test_the_control_arm_takes_every_kth_slot(tmp_path: Path) -> None:
    class Named:
        def __init__(self, name: str) -> None:
            self.name, self.closed = name, False

        def propose(self, context):
            return self.name

        def close(self) -> None:
            self.closed = True

    class At:
        def __init__(self, slot: int) -> None:
            self.slot = slot

    model, search = Named("model"), Named("gp")
    arms = WithControl(model, search, 4)
    assert [arms.propose(At(n)) for n in range(1, 9)] == ["model"] * 3 + ["gp"] + ["model"] * 3 + [
        "gp"
    ]
    arms.close()
    assert model.closed
    assert search.closed
    with pytest.raises(ValueError, match="2nd slot"):
        WithControl(create("ratchet", experiment=Experiment(), root=tmp_path), search, 1)
