"""Recorded proposals that build on each other, and chains of proposers."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path

import pytest
from support.prompts import BASE, attempt, context

from pytest_autoresearch import Experiment
from pytest_autoresearch.core.proposal import (
    Context,
    PastAttempt,
    Proposal,
    ProposalInvalid,
    ProposerExhausted,
)
from pytest_autoresearch.proposers.registry import check, create, split
from pytest_autoresearch.source.checks import run_checks
from pytest_autoresearch.source.edits import apply
from pytest_autoresearch.source.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[2]
SHIPPED = ROOT / "docs/sample/proposals"
TEXT = "one\ntwo\nthree\n"


def record(folder: Path, name: str, search: str, becomes: str, parent: str = "") -> None:
    header = f"Parent: {parent}\n" if parent else ""
    (folder / name).write_text(
        f"Title: {name}\n{header}\ntrain.py\n<<<<<<< SEARCH\n{search}\n=======\n{becomes}\n"
        ">>>>>>> REPLACE\n"
    )


class Campaign:
    """A campaign without training: verdicts are given."""

    def __init__(self, folder: Path, text: str) -> None:
        self.proposer = create(f"replay:{folder}", experiment=Experiment(), root=folder)
        base = replace(BASE, read_files=lambda: {"train.py": text})
        self.history, self.champion = [base], base

    def context(self) -> Context:
        return context(
            attempt=len(self.history), parent=self.champion, champion=self.champion,
            files=self.champion.read_files(), history=self.history,
        )  # fmt: skip

    def next(self, verdict: str = "discard") -> tuple[Proposal, str]:
        """Propose, apply to the champion and record; return the proposal and the new text."""
        proposal = self.proposer.propose(self.context())
        files = apply(self.champion.read_files(), proposal.edits)
        past: PastAttempt = attempt(
            len(self.history) + 1, verdict, parent=self.champion.attempt_id, meta=proposal.meta,
            read_files=lambda: files, edits=proposal.edits,
        )  # fmt: skip
        self.history.append(past)
        if verdict == "keep":
            self.champion = past
        return proposal, files["train.py"]


def test_a_proposal_brings_what_the_champion_lacks_of_its_ancestors(tmp_path: Path) -> None:
    record(tmp_path, "1.txt", "one", "ONE")
    record(tmp_path, "2.txt", "ONE", "One", parent="1.txt")
    record(tmp_path, "3.txt", "two", "TWO", parent="2.txt")
    record(tmp_path, "4.txt", "TWO", "Two", parent="3.txt")
    campaign = Campaign(tmp_path, TEXT)
    assert campaign.next("discard")[1] == "ONE\ntwo\nthree\n"
    assert campaign.next("keep")[1] == "One\ntwo\nthree\n"
    proposal, text = campaign.next("discard")
    assert (proposal.title, len(proposal.edits), text) == ("3.txt", 1, "One\nTWO\nthree\n")
    proposal, text = campaign.next("keep")
    assert (proposal.meta["stack"], text) == (["3.txt", "4.txt"], "One\nTwo\nthree\n")
    with pytest.raises(ProposerExhausted, match="all 4 recorded"):
        campaign.next()


def test_a_proposal_returns_to_its_own_parent_where_it_does_not_fit(tmp_path: Path) -> None:
    record(tmp_path, "1.txt", "one", "1")
    record(tmp_path, "2.txt", "one", "ONE")
    record(tmp_path, "3.txt", "ONE", "One", parent="2.txt")
    record(tmp_path, "4.txt", "three", "THREE", parent="3.txt")
    campaign = Campaign(tmp_path, TEXT)
    campaign.next("keep")
    with pytest.raises(Exception, match="does not occur"):  # as recorded: it names no parent
        campaign.next()
    campaign.history.append(attempt(3, "invalid", meta={"replay": "2.txt"}))
    proposal, text = campaign.next("keep")
    assert text == "One\ntwo\nthree\n"
    assert proposal.meta["whole"]
    proposal, text = campaign.next()
    assert (len(proposal.edits), text) == (1, "One\ntwo\nTHREE\n")


@pytest.mark.parametrize("parent", ["9.txt", "1.txt"])
def test_a_parent_that_is_absent_or_circular_is_named(tmp_path: Path, parent: str) -> None:
    record(tmp_path, "1.txt", "one", "ONE", parent=parent)
    with pytest.raises(ProposalInvalid, match=rf"1\.txt: its parent {parent} is not in the folder"):
        Campaign(tmp_path, TEXT).next()


# ---------------------------------------------------------------- the recorded night


def shipped() -> Campaign:
    return Campaign(SHIPPED, (ROOT / "train.py").read_text())


def test_recorded_proposals_name_a_reason_and_their_author() -> None:
    files = sorted(SHIPPED.iterdir())
    assert len(files) >= 25
    for path in files:
        text = path.read_text()
        assert text.count("\nHypothesis: ") == 1, path.name
        assert text.count("\nRecorded: mutation-") + text.count("\nWritten by hand: ") == 1, path.name


@pytest.mark.parametrize("keeps", [0.0, 0.5, 1.0])
def test_every_recorded_proposal_applies_whatever_was_kept(keeps: float) -> None:
    rng = random.Random(keeps)
    campaign = shipped()
    seen = {fingerprint(campaign.champion.read_files())}
    for path in sorted(SHIPPED.iterdir()):
        before = campaign.champion.read_files()
        proposal, text = campaign.next("keep" if rng.random() < keeps else "discard")
        assert proposal.meta["replay"] == path.name
        assert all(len(line) <= 100 for line in text.splitlines() if "next-token" not in line)
        after = {"train.py": text}
        notes = [note for note in run_checks(before, after) if not note.ok]
        assert not notes or fingerprint(after) in seen, path.name
        seen.add(fingerprint(after))


def test_first_six_recorded_proposals_show_every_verdict() -> None:
    """With the verdicts that they are recorded for, the sixth is the fifth in other words."""
    campaign = shipped()
    for verdict in ("keep", "cheat", "crash", "keep"):
        campaign.next(verdict)
    before = campaign.champion.read_files()
    _, fifth = campaign.next("discard")
    _, sixth = campaign.next("duplicate")
    assert fifth != sixth
    assert fingerprint({"train.py": fifth}) == fingerprint({"train.py": sixth})
    assert fingerprint({"train.py": fifth}) != fingerprint(before)


# ---------------------------------------------------------------- chains


def test_a_chain_asks_the_next_when_one_is_exhausted(tmp_path: Path) -> None:
    (tmp_path / "a,b").mkdir()
    record(tmp_path / "a,b", "1.txt", "one", "ONE")
    proposer = create("replay:a,b,ratchet", experiment=Experiment(), root=tmp_path)
    assert proposer.name == "replay,ratchet"
    given = context(attempt=1, files={"train.py": "LR = 0.02\none\n"})
    assert proposer.propose(given).proposer == "replay"
    assert proposer.fixed_order
    used = replace(given, history=[BASE, attempt(2, meta={"replay": "1.txt"})])
    assert proposer.propose(used).proposer == "ratchet"
    assert not proposer.fixed_order
    proposer.close()


def test_a_chain_ends_with_its_last(tmp_path: Path) -> None:
    record(tmp_path, "1.txt", "one", "ONE")
    proposer = create(f"replay:{tmp_path},replay:{tmp_path}", experiment=Experiment(), root=tmp_path)
    with pytest.raises(ProposerExhausted):
        proposer.propose(context(attempt(2, meta={"replay": "1.txt"})))


def test_every_member_of_a_chain_is_checked(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="is not a folder"):
        check("ratchet,replay:nowhere", tmp_path)


@pytest.mark.parametrize(
    ("spec", "members"),
    [
        ("gp", ["gp"]),
        ("replay:ideas,ratchet", ["replay:ideas", "ratchet"]),
        ("command:agent --tools a,b,gp-like,gp", ["command:agent --tools a,b,gp-like", "gp"]),
        ("mine:factory,openai:m", ["mine:factory", "openai:m"]),
    ],
)
def test_commas_separate_names_that_are_known(spec: str, members: list[str]) -> None:
    assert split(spec) == members
