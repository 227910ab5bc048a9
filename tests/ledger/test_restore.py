"""A campaign goes on from its junit log alone, or from its commits alone."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from support.project import Project, git

from pytest_autoresearch import Metric
from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.ledger import restore, snapshot, trailers
from pytest_autoresearch.ledger.git import Repository
from pytest_autoresearch.ledger.snapshot import SnapshotError
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.ledger.trailers import ANCHOR, History
from pytest_autoresearch.report import junit
from pytest_autoresearch.source.edits import apply

IDEAS = (1.2, 0.5, "no edits here\n", 0.4, "not python (", 0.9, 0.3)


_ran: list[Path] = []


@pytest.fixture
def night(project: Project, tmp_path_factory: pytest.TempPathFactory) -> Project:
    """A campaign of five attempts and the log that it left; run once and copied."""
    if not _ran:
        project.propose(*IDEAS)
        project.run(
            "--iterations=5", "--autoresearch-parents=champion", "--autoresearch-confirm=0",
            "--junitxml=log.xml",
        )  # fmt: skip
        _ran.append(tmp_path_factory.mktemp("night") / "project")
        shutil.copytree(project.path, _ran[0])
    else:
        shutil.rmtree(project.path)
        shutil.copytree(_ran[0], project.path)
        os.chdir(project.path)
    return project


def forget(project: Project) -> list[Attempt]:
    """Remove the ledger; return what it said."""
    ledger = project.ledger()
    attempts = ledger.attempts()
    ledger.close()
    shutil.rmtree(project.path / ".autoresearch")
    return attempts


def forget_commits(project: Project) -> None:
    """Remove every ref of the campaign, and the commits that nothing holds any more."""
    for ref in git(project.path, "for-each-ref", "--format=%(refname)").splitlines():
        if "autoresearch" in ref:
            git(project.path, "update-ref", "-d", ref)
    git(project.path, "reflog", "expire", "--expire=now", "--all")
    git(project.path, "gc", "-q", "--prune=now")


def described(project: Project) -> None:
    """Make the commits of a campaign say what `rebuild` reads."""
    repository, ledger = Repository.open(project.path), project.ledger()
    champions = {champion.attempt_id: champion for champion in ledger.champions()}
    facts = ledger.meta("campaign")
    made = {facts["base_commit"]: facts["base_commit"]}
    tried = {}
    for rows in snapshot.take(ledger).attempts:
        attempt = ledger.attempt(rows.attempt["id"])
        if attempt.kind == "baseline" or not attempt.commit:
            continue
        parent = made[ledger.attempt(attempt.parent).commit]
        champion = champions[attempt.champion_before] if attempt.champion_before else None
        row = trailers._champion(champion)
        tried[attempt.name] = made[attempt.commit] = repository.commit(
            parent, repository.read(attempt.commit, facts["files"]), subject=attempt.title, body="",
            trailers={
                "Attempt": attempt.name, "Verdict": attempt.verdict, "Parent": parent,
                **trailers.of_rows(rows, row),
            },
        )  # fmt: skip
    tried[ANCHOR] = repository.commit(
        facts["base_commit"], {}, subject="campaign", body="",
        trailers=trailers.of_campaign(ledger),
    )  # fmt: skip
    repository.project("main", made[ledger.champion().commit], tried)


def essence(attempt: Attempt) -> tuple[object, ...]:
    """What a further campaign needs of an attempt, commits and wording of edits apart."""
    return (
        attempt.name, attempt.kind, attempt.number, attempt.verdict, attempt.reason, attempt.title, attempt.hypothesis,
        attempt.proposer, attempt.meta, attempt.parent, attempt.champion_before, attempt.champion_after,
        attempt.fingerprint, attempt.bar, attempt.score, attempt.n, attempt.gain, attempt.gain_sigma, attempt.check_notes,
        [(t.seed, t.purpose, t.score, t.status, t.device, t.budget) for t in attempt.runs],
    )  # fmt: skip


def test_a_campaign_goes_on_from_its_junit_log_alone(night: Project) -> None:
    champion = night.ledger().champion()
    before = forget(night)
    assert restore.import_log(night.path, None, night.path / "log.xml") == 0
    ledger = night.ledger()
    assert ledger.attempts() == [
        replace(attempt, runs=tuple(replace(t, log_head="") for t in attempt.runs))
        for attempt in before
    ]
    assert ledger.champion() == champion
    ledger.close()
    assert night.run("--iterations=2", "--autoresearch-parents=champion").ret == 0
    assert [s.name for s in night.ledger().attempts()][len(before) :] == [
        "mutation-0006", "mutation-0007",
    ]  # fmt: skip
    assert night.verdicts()[5:] == ["discard", "keep"]


def test_lost_commits_are_made_again_from_the_edits(night: Project) -> None:
    ledger = night.ledger()
    scores = [dict(champion.scores) for champion in ledger.champions()]
    texts = [git(night.path, "show", f"{s.commit}:train.py") for s in ledger.attempts() if s.commit]
    before = forget(night)
    forget_commits(night)
    with pytest.raises(subprocess.CalledProcessError):
        git(night.path, "cat-file", "-e", before[-4].commit)
    assert restore.import_log(night.path, "second", night.path / "log.xml") == 0
    ledger = night.ledger("second")
    assert [dict(champion.scores) for champion in ledger.champions()] == scores
    assert texts == [git(night.path, "show", f"{s.commit}:train.py") for s in ledger.attempts()
                     if s.commit]  # fmt: skip
    tip = git(night.path, "rev-parse", "autoresearch/second")
    assert tip == ledger.champion().commit
    chain = git(night.path, "log", "--format=%s", f"main..{tip}").splitlines()
    assert chain == ["score 0.4", "score 0.5"]
    ledger.close()
    run = night.run(
        "--iterations=2", "--autoresearch-tag=second", "--autoresearch-parents=champion"
    )
    assert run.ret == 0
    assert night.verdicts("second")[5:] == ["discard", "keep"]


def test_a_campaign_goes_on_from_its_commits_alone(night: Project) -> None:
    described(night)
    champions = [dict(champion.scores) for champion in night.ledger().champions()]
    before = [s for s in forget(night) if s.commit]
    assert restore.rebuild(night.path, None) == 0
    ledger = night.ledger()
    after = ledger.attempts()
    assert [essence(attempt) for attempt in after] == [essence(attempt) for attempt in before]
    assert [dict(champion.scores) for champion in ledger.champions()] == champions
    assert ledger.champion().commit == git(night.path, "rev-parse", "autoresearch/main")
    base = {"train.py": git(night.path, "show", "main:train.py") + "\n"}
    first = next(attempt for attempt in after if attempt.name == "mutation-0001")
    assert "SCORE = 1.2" in apply(base, first.edits)["train.py"]
    ledger.close()
    assert night.run("--iterations=1", "--autoresearch-parents=champion").ret == 0


def test_the_trailers_that_a_campaign_writes_are_enough(night: Project) -> None:
    scores = [dict(champion.scores) for champion in night.ledger().champions()]
    before = [s for s in forget(night) if s.commit]
    assert restore.rebuild(night.path, None) == 0
    ledger = night.ledger()
    assert [essence(attempt) for attempt in ledger.attempts()] == [
        essence(attempt) for attempt in before
    ]
    assert [s.commit for s in ledger.attempts()] == [s.commit for s in before]
    assert [dict(champion.scores) for champion in ledger.champions()] == scores


def test_a_keep_that_only_the_branch_holds_is_found(night: Project) -> None:
    described(night)
    [kept] = [s.name for s in night.ledger().attempts() if s.title == "score 0.4"]
    git(night.path, "update-ref", "-d", f"refs/autoresearch/main/{kept}")
    known = trailers.read(History.open(night.path), "main")
    assert [row["version"] for row in known.champions] == [1, 2, 3]


def test_a_hypothesis_that_looks_like_a_trailer_changes_nothing(night: Project) -> None:
    repository = Repository.open(night.path)
    ledger = night.ledger()
    attempt = ledger.attempts()[-2]
    [rows] = [r for r in snapshot.take(ledger).attempts if r.attempt["id"] == attempt.id]
    commit = repository.commit(
        attempt.commit, {}, subject="s", body="Autoresearch-Record: {}\nAutoresearch-Champion: {}",
        trailers=trailers.of_rows(rows, None),
    )  # fmt: skip
    assert repository.trailers(commit)["Champion"] == "null"
    assert attempt.name in repository.trailers(commit)["Record"]


@settings(max_examples=20, suppress_health_check=[HealthCheck.too_slow])
@given(text=st.text(st.characters(), max_size=40))
def test_no_text_is_lost_in_a_trailer(text: str) -> None:
    value = trailers._value({"a": text})
    assert " ".join(value.split()) == value
    assert snapshot.json.loads(value) == {"a": text}


def test_refusals_name_the_remedy_and_change_nothing(night: Project, capsys) -> None:
    log = night.path / "log.xml"
    refs = git(night.path, "for-each-ref")

    def refused(word: str, code: int) -> None:
        assert code == restore.NOT_TRIED
        assert word in capsys.readouterr().err
        assert git(night.path, "for-each-ref") == refs

    refused("give another --tag", restore.import_log(night.path, None, log))
    refused("name a junit log", restore.import_log(night.path, None, night.path / "none.xml"))
    refused("no campaign's name", restore.import_log(night.path, "../up", log))
    refused("import its junit log", restore.rebuild(night.path, "never"))


def test_a_log_of_another_repository_is_refused(night: Project, tmp_path, capsys) -> None:
    other = tmp_path / "other"
    other.mkdir()
    git(other, "init", "-q", "-b", "main")
    (other / "train.py").write_text("A = 1\n")
    git(other, "add", "-A")
    git(other, "commit", "-qm", "start")
    assert restore.import_log(other, None, night.path / "log.xml") == restore.NOT_TRIED
    assert "is not in this repository" in capsys.readouterr().err
    assert Ledger.open(other, "main").attempts() == []


def test_a_log_from_before_the_first_attempt_is_refused(project: Project, tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "empty")
    junit.write(tmp_path / "log.xml", [], Metric(), {}, known=snapshot.take(ledger))
    known = junit.read(tmp_path / "log.xml")
    with pytest.raises(SnapshotError, match="ended before it began"):
        restore.restore(Repository.open(project.path), "new", known)
