"""The ledger's promises: one verdict an attempt, nothing lost, one champion at a time."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from pytest_autoresearch.core.proposal import Edit, Proposal, Usage
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.proposals import RETRIES
from pytest_autoresearch.ledger.store import (
    AttemptTaken,
    CampaignBusy,
    ChampionMoved,
    Ledger,
    LedgerUnavailable,
)

PROPOSAL = Proposal(
    "halve it",
    (Edit("train.py", "A = 2\n", "A = 1\n"),),
    "because",
    proposer="gp",
    usage=Usage(model="m", cost_usd=0.25),
    meta={"params": {"A": 1}},
)


def begin(ledger: Ledger, number: int = 1, kind: str = "mutation") -> int:
    session = ledger.begin_session(driver="d")
    return ledger.start_attempt(
        session_id=session, worker="main", name=f"{kind}-{number}", kind=kind, number=number
    ).id


def test_a_attempt_reads_back_as_it_was_written(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempt = begin(ledger)
    ledger.save_proposal(attempt, PROPOSAL, parent=7)
    run = ledger.start_run(
        attempt, seed=1, purpose="first", device="cpu", concurrency=1, budget="600ktok"
    )
    result = Run(
        "ok", score=0.1 + 0.2, curve=((0.5, 3.25),), metrics={"x": 1.5}, checkpoint=Path("/c")
    )
    ledger.finish_run(run, result)
    ledger.finish_attempt(attempt, verdict="discard", score=0.1 + 0.2, reason="no")
    ledger.close()
    [found] = Ledger.open(tmp_path, "t").attempts()
    assert (found.title, found.edits, found.usage, found.meta) == (
        PROPOSAL.title, PROPOSAL.edits, PROPOSAL.usage, PROPOSAL.meta,
    )  # fmt: skip
    assert (found.verdict, found.score, found.parent, found.state) == (
        "discard",
        0.1 + 0.2,
        7,
        "done",
    )
    [record] = found.runs
    assert (record.score, record.curve, record.checkpoint) == (
        0.1 + 0.2,
        ((0.5, 3.25),),
        Path("/c"),
    )
    assert record.metrics == {"x": 1.5}


def test_a_attempt_has_one_verdict(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempt = begin(ledger)
    ledger.finish_attempt(attempt, verdict="crash")
    with pytest.raises(ValueError, match="not running"):
        ledger.finish_attempt(attempt, verdict="keep")


def test_a_cut_off_attempt_gives_its_proposal_to_the_next(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempt = begin(ledger)
    ledger.save_proposal(attempt, PROPOSAL, parent=None)
    ledger.abandon_attempt(attempt, "infra", "no GPU")
    following = begin(ledger, 2)
    assert ledger.lease_proposal(following) == (PROPOSAL, None)
    assert ledger.lease_proposal(begin(ledger, 3)) is None


def test_a_proposal_that_was_given_back_is_paid_for_by_one_attempt(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    first = begin(ledger)
    ledger.save_proposal(first, replace(PROPOSAL, usage=Usage(cost_usd=0.5)), parent=None)
    ledger.abandon_attempt(first, "infra", "no GPU")
    assert [attempt.usage.cost_usd for attempt in ledger.attempts()] == [0.5]
    second = begin(ledger, 2)
    ledger.lease_proposal(second)
    ledger.charge(second, Usage(cost_usd=0.25))
    assert [attempt.usage.cost_usd for attempt in ledger.attempts()] == [None, 0.75]
    assert ledger.attempt(first).title == ledger.attempt(second).title == PROPOSAL.title


def test_a_proposal_that_brings_the_infrastructure_down_does_not_take_every_attempt(
    tmp_path: Path,
) -> None:
    ledger = Ledger.open(tmp_path, "t")
    tonight, tomorrow = ledger.begin_session(driver="d"), ledger.begin_session(driver="d")

    def start(session: int, number: int) -> int:
        return ledger.start_attempt(
            session_id=session, worker="main", name=f"m{number}", kind="mutation", number=number
        ).id

    attempt = start(tonight, 1)
    ledger.save_proposal(attempt, PROPOSAL, parent=None)
    for number in range(2, RETRIES + 1):
        ledger.abandon_attempt(attempt, "infra", "no GPU")
        attempt = start(tonight, number)
        assert ledger.lease_proposal(attempt) == (PROPOSAL, None)
    ledger.abandon_attempt(attempt, "infra", "no GPU")
    assert ledger.lease_proposal(start(tonight, 8)) is None
    assert ledger.lease_proposal(start(tomorrow, 9)) == (PROPOSAL, None)


def test_a_repeat_is_found_also_while_the_first_still_runs(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    first, second = begin(ledger, 1), begin(ledger, 2)
    assert ledger.claim_fingerprint(first, "f") is None
    assert ledger.claim_fingerprint(second, "f").id == first
    ledger.abandon_attempt(first, "interrupted", "")
    assert ledger.claim_fingerprint(second, "f") is None


def test_a_baseline_is_measured_once(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempt = begin(ledger, 1, "baseline")
    with pytest.raises(AttemptTaken) as taken:
        begin(ledger, 1, "baseline")
    assert taken.value.record.id == attempt
    ledger.abandon_attempt(attempt, "interrupted", "")
    begin(ledger, 1, "baseline")


def test_a_crown_is_lost_when_the_champion_moved(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempts = [begin(ledger, i) for i in range(3)]
    ledger.promote(0, attempts[0], "c0", {1: 2.0})
    ledger.promote(1, attempts[1], "c1", {1: 1.0}, outcome={"verdict": "keep"})
    with pytest.raises(ChampionMoved):
        ledger.promote(1, attempts[2], "c2", {1: 0.5}, outcome={"verdict": "keep"})
    assert ledger.champion().commit == "c1"
    assert ledger.attempt(attempts[2]).verdict is None
    ledger.add_champion_scores(2, {2: 3.0})
    assert ledger.champion().mean == 2.0


def test_another_drivers_live_session_keeps_the_campaign(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    session = ledger.begin_session(driver="one")
    ledger.begin_session(driver="one", worker="gw0")
    with pytest.raises(CampaignBusy, match=f"process {os.getpid()}"):
        ledger.begin_session(driver="two")
    ledger.end_session(session, 0)


def _die_in_a_attempt(root: Path) -> None:
    ledger = Ledger.open(root, "t")
    attempt = begin(ledger)
    ledger.save_proposal(attempt, PROPOSAL, parent=None)
    os.kill(os.getpid(), signal.SIGKILL)


def test_a_dead_process_loses_its_lock_and_its_attempt(tmp_path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(
        target=_die_in_a_attempt, args=(tmp_path,)
    )
    process.start()
    process.join()
    ledger = Ledger.open(tmp_path, "t")
    ledger.begin_session(driver="another")
    [attempt] = ledger.attempts()
    assert attempt.state == "interrupted"
    assert ledger.lease_proposal(begin_more(ledger)) == (PROPOSAL, None)


def begin_more(ledger: Ledger) -> int:
    return ledger.start_attempt(
        session_id=1, worker="main", name="mutation-2", kind="mutation", number=2
    ).id


def _hammer(root: Path, worker: int, kills: bool) -> None:
    ledger = Ledger.open(root, "t")
    session = ledger.begin_session(driver="same", worker=str(worker))
    for i in range(40):
        attempt = ledger.start_attempt(
            session_id=session,
            worker=str(worker),
            name=f"m-{worker}-{i}",
            kind="mutation",
            number=100 * worker + i,
        ).id
        while True:
            champion = ledger.champion()
            version = champion.version if champion else 0
            score = 1.0 if champion is None else champion.mean - 1
            try:
                ledger.promote(
                    version, attempt, f"{worker}/{i}", {1: score}, outcome={"verdict": "keep"}
                )
                break
            except ChampionMoved:
                continue
        if kills and i == 20:
            os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.slow
def test_four_processes_lose_no_update_and_a_kill_tears_nothing(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    workers = [context.Process(target=_hammer, args=(tmp_path, i, i == 3)) for i in range(4)]
    Ledger.open(tmp_path, "t")
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    ledger = Ledger.open(tmp_path, "t")
    champions = ledger.champions()
    assert [c.version for c in champions] == list(range(1, 3 * 40 + 21 + 1))
    assert [c.mean for c in champions] == sorted((c.mean for c in champions), reverse=True)
    kept = [s.id for s in ledger.attempts() if s.verdict == "keep"]
    assert sorted(kept) == sorted(c.attempt_id for c in champions)


def test_a_newer_schema_is_refused_with_the_remedy(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(LedgerUnavailable, match=r"schema 99.*update pytest-autoresearch"):
        Ledger.open(tmp_path, "t")


def test_a_full_or_broken_file_is_infrastructure(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    ledger.close()
    ledger.path.write_bytes(b"not a database" * 100)
    with pytest.raises(LedgerUnavailable, match="nothing was recorded"):
        Ledger.open(tmp_path, "t")


def test_the_folder_ignores_itself(tmp_path: Path) -> None:
    Ledger.open(tmp_path, "t")
    assert (tmp_path / ".autoresearch/.gitignore").read_text() == "*\n"


class Life(RuleBasedStateMachine):
    """Any order of events leaves a ledger that agrees with itself."""

    attempts = Bundle("attempts")

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.ledger = Ledger.open(Path(self.folder.name), "t")
        self.session = self.ledger.begin_session(driver="d")
        self.number = 0
        self.saved = 0

    @rule(target=attempts)
    def start(self) -> int:
        self.number += 1
        return self.ledger.start_attempt(
            session_id=self.session, worker="w", name=f"m{self.number}", kind="mutation",
            number=self.number,
        ).id  # fmt: skip

    @rule(attempt=attempts)
    def propose(self, attempt: int) -> None:
        record = self.ledger.attempt(attempt)
        if record.state != "running" or record.title:
            return
        if self.ledger.lease_proposal(attempt) is None:
            self.ledger.save_proposal(attempt, PROPOSAL, None)
            self.saved += 1

    @rule(attempt=attempts, verdict=st.sampled_from(["discard", "crash", "invalid"]))
    def finish(self, attempt: int, verdict: str) -> None:
        if self.ledger.attempt(attempt).state == "running":
            self.ledger.finish_attempt(attempt, verdict=verdict)

    @rule(attempt=attempts, late=st.booleans())
    def keep(self, attempt: int, late: bool) -> None:
        if self.ledger.attempt(attempt).state != "running":
            return
        champion = self.ledger.champion()
        version = champion.version if champion else 0
        if late and version:
            with pytest.raises(ChampionMoved):
                self.ledger.promote(
                    version - 1, attempt, "c", {1: 1.0}, outcome={"verdict": "keep"}
                )
        else:
            self.ledger.promote(version, attempt, "c", {1: 1.0}, outcome={"verdict": "keep"})

    @rule(attempt=attempts)
    def abandon(self, attempt: int) -> None:
        self.ledger.abandon_attempt(attempt, "interrupted", "")

    @invariant()
    def agrees(self) -> None:
        records = self.ledger.attempts()
        assert len({record.name for record in records}) == len(records)
        assert all((r.verdict is not None) == (r.state == "done") for r in records)
        kept = {r.id for r in records if r.verdict == "keep"}
        assert kept == {c.attempt_id for c in self.ledger.champions()}
        with sqlite3.connect(self.ledger.path) as db:
            states = [row[0] for row in db.execute("SELECT state FROM proposals")]
            leases = [row[0] for row in db.execute(
                "SELECT attempt_id FROM proposals WHERE state = 'leased'")]  # fmt: skip
        assert len(states) == self.saved
        assert len(leases) == len(set(leases))

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


Life.TestCase.settings = settings(
    max_examples=15, stateful_step_count=20, deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)  # fmt: skip
TestLife = Life.TestCase


def test_a_title_is_stored_as_one_line_that_anything_can_show(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    session = ledger.begin_session(driver="d")
    attempt = ledger.start_attempt(
        session_id=session, worker="main", name="mutation-0001", kind="mutation", number=1
    ).id
    title = "a\x1b[31m\tb\r\nc \u202ed\ud800"
    ledger.save_proposal(attempt, replace(PROPOSAL, title=title), parent=None)
    assert ledger.attempt(attempt).title == "a b c d"
    ledger.add_draft(replace(PROPOSAL, title="\x07"), parent=attempt)
    waiting = ledger.lease_proposal(attempt)
    assert waiting is not None
    assert waiting[0].title == "untitled"


def test_a_number_is_used_once(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    attempt = begin(ledger, 1)
    with pytest.raises(AttemptTaken):
        begin(ledger, 1)
    ledger.abandon_attempt(attempt, "interrupted", "")
    repeated = begin(ledger, 1)
    ledger.finish_attempt(repeated, verdict="crash")
    with pytest.raises(AttemptTaken):
        begin(ledger, 1)
    begin(ledger, 1, "ablation")
    with sqlite3.connect(ledger.path) as db, pytest.raises(sqlite3.IntegrityError):
        db.execute("UPDATE attempts SET state = 'done' WHERE id = ?", (attempt,))


def test_a_ledger_with_repeated_numbers_is_migrated(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    for number in (1, 2):
        ledger.finish_attempt(begin(ledger, number), verdict="crash")
    ledger.close()
    with sqlite3.connect(ledger.path) as db:
        db.execute("DROP INDEX attempts_number")
        db.execute("ALTER TABLE attempts DROP COLUMN commit_object")
        db.execute("UPDATE attempts SET number = 1")
        db.execute("PRAGMA user_version = 2")
    migrated = Ledger.open(tmp_path, "t")
    assert [attempt.number for attempt in migrated.attempts()] == [1, 1]
    ledger.finish_attempt(begin(migrated, 2), verdict="crash")
    with pytest.raises(AttemptTaken):
        begin(migrated, 2)
    assert migrated.commit_object(1) == ""


def test_a_deleted_or_replaced_file_is_lost(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    begin(ledger)
    ledger.path.rename(tmp_path / "moved")
    with pytest.raises(LedgerUnavailable, match=r"was deleted; run: python -m .* restore --tag t"):
        ledger.attempts()
    assert not Ledger.exists(tmp_path, "t")
    ledger.path.touch()
    assert ledger.lost()
    assert not Ledger.exists(tmp_path, "t")
