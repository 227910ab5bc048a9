"""A campaign continues in a fresh clone from the copy of its ledger in git."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import zlib
from pathlib import Path

import pytest
from support.project import Project, git

from pytest_autoresearch import Metric
from pytest_autoresearch.__main__ import main
from pytest_autoresearch.cli.restore import restore
from pytest_autoresearch.judge.noise import noise_of
from pytest_autoresearch.ledger import copy
from pytest_autoresearch.ledger.git import Repository
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.ledger.store import Ledger

REFS = "+refs/autoresearch/*:refs/autoresearch/*"


@pytest.fixture
def campaign(project: Project) -> Project:
    """A project with a campaign of four attempts, two of them kept."""
    project.propose(1.2, 0.5, "not python (", 0.4, 0.3)
    result = project.run(
        "--iterations=4", "--autoresearch-parents=champion", "--autoresearch-confirm=0"
    )
    assert result.ret == 0
    return project


def clone(project: Project, folder: Path) -> Path:
    git(project.path, "clone", "-q", str(project.path), str(folder))
    git(folder, "fetch", "-q", "origin", REFS)
    return folder


def test_a_clone_restores_numbering_champion_noise_logs_curves_and_money(
    campaign: Project, tmp_path: Path
) -> None:
    ledger = campaign.ledger()
    CostBudget(ledger.path).settle(CostBudget(ledger.path).reserve("m", 0.5), 0.25)
    copy.save(Repository.open(campaign.path), ledger)
    there = clone(campaign, tmp_path / "clone")
    assert restore(there, None) == 0
    restored = Ledger.open(there, "main")
    assert restored.attempts() == ledger.attempts()
    assert restored.champions() == ledger.champions()
    assert restored.next_number("mutation") == 5
    assert CostBudget(restored.path).spent() == 0.25
    metric = Metric("val_bpb")
    assert noise_of(restored.attempts(), restored.champions(), metric) == noise_of(
        ledger.attempts(), ledger.champions(), metric
    )
    assert all(run.log_head or run.log_tail for run in restored.runs() if run.status == "ok")
    tip = git(there, "rev-parse", "refs/heads/autoresearch/main")
    assert tip == ledger.champions()[-1].commit


def test_a_restored_campaign_continues_with_the_next_number(
    campaign: Project, tmp_path: Path
) -> None:
    there = clone(campaign, tmp_path / "clone")
    assert restore(there, "main") == 0
    shutil.copytree(campaign.path / "ideas", there / "ideas")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--autoresearch", "--iterations=1",
         "--autoresearch-proposer=replay:ideas", "--autoresearch-confirm=0"],
        cwd=there, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    assert "mutation-0005" in done.stdout


def test_only_the_latest_copy_is_reachable(campaign: Project) -> None:
    repository, ledger = Repository.open(campaign.path), campaign.ledger()
    copy.save(repository, ledger)
    copy.save(repository, ledger)
    listing = git(campaign.path, "rev-list", "refs/autoresearch/main/ledger")
    assert len(listing.splitlines()) == 1


def test_a_large_copy_leaves_out_logs_of_discards(
    campaign: Project, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copy, "LIMIT_BYTES", 1)
    copy.save(Repository.open(campaign.path), campaign.ledger())
    there = clone(campaign, tmp_path / "clone")
    assert restore(there, None) == 0
    for attempt in Ledger.open(there, "main").attempts():
        logs = [run.log_head or run.log_tail for run in attempt.runs if run.status == "ok"]
        assert all(logs) if attempt.verdict == "keep" else not any(logs)


def test_refusals_name_the_remedy_and_write_nothing(
    campaign: Project, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch
) -> None:
    def refused(words: str, root: Path, tag: str | None = None) -> None:
        monkeypatch.chdir(root)
        assert main(["restore", *([f"--tag={tag}"] if tag else [])]) == 4
        assert words in capsys.readouterr().err

    before = campaign.ledger().path.read_bytes()
    refused("has a ledger already; move", campaign.path)
    assert campaign.ledger().path.read_bytes() == before
    plain = tmp_path / "plain"
    git(campaign.path, "clone", "-q", str(campaign.path), str(plain))
    refused("git fetch origin '+refs/autoresearch/main/*", plain)
    there = clone(campaign, tmp_path / "clone")
    Repository.open(there).store_ledger("main", zlib.compress(b"not a database" * 100))
    refused("is damaged", there)
    Repository.open(there).store_ledger("main", b"not compressed")
    refused("is damaged", there)
    assert not Ledger.exists(there, "main")


def test_commit_messages_are_readable(campaign: Project) -> None:
    message = git(campaign.path, "log", "-1", "--format=%B", "autoresearch/main")
    subject, blank, *rest = message.splitlines()
    assert subject == "score 0.4 (+0.100000)"
    assert blank == ""
    assert re.fullmatch(r"val_bpb 0\.4\d+ over \d seed\(s\), gain \+0\.\d{6} \(\+.* sigma\)", rest[0])
    trailers = [line for line in rest if line.startswith("Autoresearch-")]
    assert 0 < len(trailers) <= 8
    assert len(message) < 1500
