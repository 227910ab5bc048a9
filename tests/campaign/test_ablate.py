"""Keeps that cost nothing to leave out, and programs that are simpler and as good."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from support.project import Project, git

from pytest_autoresearch import Edit, Proposal
from pytest_autoresearch.campaign.ablate import without
from pytest_autoresearch.core.records import ABLATION, Attempt
from pytest_autoresearch.ledger.store import Ledger

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


def test_keep_made_useless_by_a_later_one_is_removed(make_project) -> None:
    project: Project = make_project(train=BRANCHY)
    project.propose(setting("BONUS", 0.1), setting("OTHER", 0.3))
    result = project.run("--iterations=2", "--autoresearch-ablate", "--autoresearch-confirm=1")
    assert project.verdicts() == ["keep", "keep", "keep"]
    result.stdout.fnmatch_lines(
        ["*without mutation-0001 BONUS 0.1: removed*", "*confirmed gain  +0.3*"]
    )
    branch = git(project.path, "show", "autoresearch/main:train.py")
    assert "BONUS = 0.0" in branch
    assert "OTHER = 0.3" in branch


def test_needed_keep_stays(make_project) -> None:
    project: Project = make_project(train=BRANCHY.replace("max(BONUS, OTHER)", "(BONUS + OTHER)"))
    project.propose(setting("BONUS", 0.1), setting("OTHER", 0.3))
    project.run("--iterations=2", "--autoresearch-ablate", "--autoresearch-confirm=0")
    assert project.verdicts()[:2] == ["keep", "keep"]
    assert "keep" not in project.verdicts()[2:]
    branch = git(project.path, "show", "autoresearch/main:train.py")
    assert "BONUS = 0.1" in branch
    assert "OTHER = 0.3" in branch


def test_equal_score_with_less_code_is_kept(project: Project) -> None:
    project.propose(
        "Title: no sleep\n\ntrain.py\n<<<<<<< SEARCH\ntime.sleep(SLEEP)\n=======\n>>>>>>> REPLACE\n",
        "Title: no rate\n\ntrain.py\n<<<<<<< SEARCH\nLR = 0.5\n=======\nLR = 0.25\n>>>>>>> REPLACE\n",
    )
    project.run("--iterations=2", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep", "discard"]
    first = next(s for s in project.ledger().attempts() if s.kind == "mutation")
    assert first.n == 2


FILES = {
    "base": "A = 0\nx\nB = 0\ny\nC = 0\n",
    "one": "A = 1\nx\nB = 0\ny\nC = 0\n",
    "two": "A = 1\nx\nB = 0\ny\nC = 2\n",
    "three": "A = 1\nx\nB = 3\ny\nC = 2\n",
}


def keep(number: int, commit: str, before: int, edit: tuple[str, str]) -> Attempt:
    return Attempt(
        number, commit, "mutation", number, 1, "main", "done", 0.0, commit=commit,
        champion_before=before, edits=(Edit("t", *edit),),
    )  # fmt: skip


def campaign_of(*keeps: Attempt) -> Any:
    attempts = {0: keep(0, "base", 0, ("", "")), **{attempt.id: attempt for attempt in keeps}}
    return SimpleNamespace(
        runner=SimpleNamespace(read=lambda commit: {"t": FILES[commit]}),
        ledger=SimpleNamespace(attempt=attempts.get),
        facts=SimpleNamespace(base_commit="base"),
    )


def test_ablation_reverts_one_keep_if_edits_do_not_add_up() -> None:
    # the second keep was a change of a near-miss that had C = 2, and holds its B = 3 alone
    keeps = [keep(1, "one", 0, ("A = 0", "A = 1")), keep(2, "three", 1, ("B = 0", "B = 3"))]
    campaign = cast(Any, campaign_of(*keeps))
    left = without(campaign, keeps, keeps[0], {"t": FILES["three"]})
    assert left == {"t": "A = 0\nx\nB = 3\ny\nC = 2\n"}
    assert without(campaign, keeps, keeps[1], {"t": FILES["three"]}) == {"t": FILES["one"]}


def test_keep_replaced_by_a_later_one_cannot_be_left_out() -> None:
    keeps = [keep(1, "one", 0, ("A = 0", "A = 1")), keep(2, "base", 1, ("A = 0", "A = 0"))]
    assert without(campaign_of(*keeps), keeps, keeps[0], {"t": "B = 0\n"}) is None


def test_interrupted_ablation_is_not_requeued_as_a_mutation(tmp_path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    proposal = Proposal("without it", (Edit("t", "a", "b"),), "why", proposer=ABLATION)
    for kind, number, waits in ((ABLATION, 2, False), ("mutation", 3, True)):
        session = ledger.begin_session(driver=kind)
        attempt = ledger.start_attempt(
            session_id=session, worker="main", name=f"{kind}-1", kind=kind, number=1
        )
        ledger.save_proposal(attempt.id, proposal, parent=None)
        ledger.end_session(session, 2)
        session = ledger.begin_session(driver="next")
        after = ledger.start_attempt(
            session_id=session, worker="main", name="after", kind="mutation", number=number
        )
        assert (ledger.lease_proposal(after.id) is not None) == waits
        ledger.finish_attempt(after.id, verdict="discard")
        ledger.end_session(session, 0)
    ledger.close()
