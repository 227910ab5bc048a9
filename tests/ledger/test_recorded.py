"""A ledger of schema 1 reads the same as the version that wrote it did."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from pytest_autoresearch import Metric
from pytest_autoresearch.core.records import Confirmation
from pytest_autoresearch.judge.noise import noise_of
from pytest_autoresearch.ledger.store import Ledger

RECORDED = Path(__file__).parents[1] / "recordings/ledger"
FIGURES = json.loads((RECORDED / "figures.json").read_text())


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    folder = tmp_path / ".autoresearch/main"
    folder.mkdir(parents=True)
    shutil.copy(RECORDED / "ledger.sqlite", folder)
    return Ledger.open(tmp_path, "main")


def test_attempts_and_their_runs(ledger: Ledger) -> None:
    read = [
        {
            "name": one.name, "kind": one.kind, "state": one.state, "verdict": one.verdict,
            "reason": one.reason, "title": one.title, "score": one.score, "gain": one.gain,
            "gain_sigma": one.gain_sigma, "bar": one.bar, "n": one.n, "parent": one.parent,
            "champion_before": one.champion_before, "champion_after": one.champion_after,
            "checks": [[note.name, note.ok] for note in one.check_notes],
            "edits": len(one.edits),
            "runs": [[r.seed, r.purpose, r.state, r.status, r.score, r.metrics] for r in one.runs],
        }
        for one in ledger.attempts()
    ]  # fmt: skip
    assert json.loads(json.dumps(read)) == FIGURES["attempts"]


def test_champions_noise_and_numbering(ledger: Ledger) -> None:
    champions = [
        [c.version, c.attempt_id, c.mean, {str(seed): s for seed, s in c.scores.items()}]
        for c in ledger.champions()
    ]
    assert champions == FIGURES["champions"]
    noise = noise_of(ledger.attempts(), ledger.champions(), Metric("val_bpb"))
    assert [noise.sigma, noise.freedom] == pytest.approx(FIGURES["noise"])
    assert ledger.next_number("mutation") == FIGURES["next"]


def test_the_confirmation_of_its_champion(ledger: Ledger) -> None:
    for keep in FIGURES["confirmation"]["keeps"]:
        keep["attempt"] = keep.pop("slot")
    assert ledger.confirmation() == Confirmation.from_json(FIGURES["confirmation"])
