"""The hook for plugins is called for every verdict by the driver and never blocks it."""

from __future__ import annotations

import json
import logging
import os
import pickle
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from support import campaigns as made_up
from support.project import Project

from pytest_autoresearch import hookspecs
from pytest_autoresearch.core.proposal import Proposal, Usage
from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.store import Ledger


@pytest.fixture
def record(tmp_path: Path) -> Iterator[Attempt]:
    ledger = Ledger.open(tmp_path, "night")
    made_up.write(ledger, {"attempts": [], "drafts": []})
    attempt = made_up.start(ledger, 1, "mutation", 1)
    proposal = Proposal("halve it", (), "because", "gp", Usage("some-model", cost_usd=0.125))
    ledger.save_proposal(attempt, proposal, parent=1)
    result = Run("ok", score=0.75, steps=586, curve=((0.5, 3.5), (1.0, 2.5)))
    made_up.run(ledger, attempt, 1, "first", result)
    ledger.finish_attempt(attempt, verdict="discard", score=0.75, gain=-0.25, gain_sigma=-2.5, n=1)
    yield ledger.attempt(attempt)
    ledger.close()


def plugins(*modules: object) -> pytest.PytestPluginManager:
    manager = pytest.PytestPluginManager()
    manager.add_hookspecs(hookspecs)
    for module in modules:
        manager.register(module)
    manager.check_pending()
    return manager


class Listener:
    def __init__(self) -> None:
        self.heard: list[tuple[str, set[str]]] = []

    def pytest_autoresearch_attempt_finished(self, record, artifacts) -> None:
        self.heard.append((record.name, set(artifacts)))


class OnlyTheRecord:
    def __init__(self) -> None:
        self.heard: list[str] = []

    def pytest_autoresearch_attempt_finished(self, record) -> None:
        self.heard.append(record.name)


class Broken:
    def pytest_autoresearch_attempt_finished(self, record, artifacts) -> None:
        raise ConnectionError("the tracker is away")


def test_every_plugin_is_called_with_the_attempt_and_existing_files(record, tmp_path: Path) -> None:
    one, two = Listener(), OnlyTheRecord()
    (tmp_path / "log.xml").write_text("x")
    files = hookspecs.artifacts_of(
        record, tmp_path / ".autoresearch/night/ledger.sqlite",
        junit=tmp_path / "log.xml", tsv=tmp_path / "not-there.tsv", html=None,
    )  # fmt: skip
    hookspecs.announce(plugins(one, two), record, files)
    assert one.heard == [("mutation-1", {"ledger", "junit"})]
    assert two.heard == ["mutation-1"]


def test_a_failing_plugin_is_reported_and_the_others_are_called(record, caplog) -> None:
    before, after, said = Listener(), Listener(), []
    with caplog.at_level(logging.ERROR, "pytest_autoresearch"):
        hookspecs.announce(plugins(before, Broken(), after), record, {}, said.append)
    assert before.heard == after.heard == [("mutation-1", set())]
    assert len(said) == 1
    assert "the tracker is away" in said[0]
    assert "ConnectionError" in caplog.text


LISTENER = """
def pytest_autoresearch_attempt_finished(record, artifacts):
    with open("heard.txt", "a") as file:
        print(record.name, record.verdict, *sorted(artifacts), file=file)
    if record.verdict == "keep":
        raise ConnectionError("the tracker is away")
"""


@pytest.mark.parametrize("workers", [(), pytest.param(("-n2",), marks=pytest.mark.slow)])
def test_a_conftest_hook_is_called_once_per_verdict(project: Project, workers) -> None:
    text = (project.path / "conftest.py").read_text()
    project.write("conftest.py", text + LISTENER)
    project.commit("listen")
    project.propose(0.5, 1.5)
    result = project.run("--iterations=2", "--junitxml=log.xml", *workers, timeout=300)
    assert result.ret == 0
    heard = [line.split() for line in (project.path / "heard.txt").read_text().splitlines()]
    assert sorted(words[0] for words in heard) == [
        *(f"baseline-{number}" for number in range(1, 7)), "mutation-0001", "mutation-0002",
    ]  # fmt: skip
    assert {words[1] for words in heard} == {"baseline", "keep", "discard"}
    assert all({"ledger", "junit", "tsv"} <= set(words[2:]) for words in heard)
    assert "the tracker is away" in result.stdout.str() + result.stderr.str()


IMPORTED = """
import sys

def pytest_unconfigure():
    heavy = {"torch", "numpy", "rich", "git", "anthropic", "sqlite3", "mlflow"} & set(sys.modules)
    ours = [name.partition(".")[2] for name in sys.modules if name.startswith("pytest_autoresearch.")]
    print("\\nIMPORTED", *sorted(ours), *heavy)
"""


def test_without_the_option_only_three_modules_are_imported(pytester: pytest.Pytester) -> None:
    pytester.makeconftest(IMPORTED)
    result = pytester.runpytest_subprocess("-p", "no:hypothesispytest", "-p", "no:cacheprovider")
    result.stdout.fnmatch_lines(["IMPORTED core core.experiment hookspecs options plugin"])


# ---------------------------------------------------------------------- trackers, through their own


def test_a_missing_tracker_package_is_named(tmp_path: Path) -> None:
    found = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "pytest_autoresearch.trackers.mlflow", "--co"],
        cwd=tmp_path, capture_output=True, text=True,
    )  # fmt: skip
    if found.returncode == pytest.ExitCode.NO_TESTS_COLLECTED:
        pytest.skip("mlflow is installed here")
    assert "No module named 'mlflow'" in found.stderr


def announce(module, record: Attempt, root: Path) -> None:
    ledger = root / ".autoresearch/night/ledger.sqlite"
    failures: list[str] = []
    hookspecs.announce(plugins(module), record, {"ledger": ledger}, failures.append)
    assert failures == []


def test_mlflow_gets_one_run_per_attempt(record: Attempt, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("mlflow", reason="needs the extra [mlflow]")
    pytest.importorskip("sqlalchemy", reason="needs the extra [mlflow]")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    from pytest_autoresearch.trackers import mlflow as adapter

    announce(adapter, record, tmp_path)
    db = sqlite3.connect(tmp_path / ".autoresearch/mlflow/mlflow.db")
    assert ("night",) in db.execute("SELECT name FROM experiments").fetchall()
    assert db.execute("SELECT name, status FROM runs").fetchall() == [("mutation-1", "FINISHED")]
    metrics = dict(db.execute("SELECT key, value FROM metrics").fetchall())
    assert (metrics["score"], metrics["gain"], metrics["dollars"]) == (0.75, -0.25, 0.125)
    params = dict(db.execute("SELECT key, value FROM params").fetchall())
    assert (params["title"], params["verdict"]) == ("halve it", "discard")


def test_tensorboard_gets_scalars_and_loss_curves(record: Attempt, tmp_path: Path) -> None:
    pytest.importorskip("tensorboardX", reason="needs the extra [tensorboard]")
    reader = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="needs the extra [tensorboard]",
    )
    from pytest_autoresearch.trackers import tensorboard as adapter

    announce(adapter, record, tmp_path)
    seen = reader.EventAccumulator(str(tmp_path / ".autoresearch/tensorboard/night"))
    seen.Reload()

    def scalars(name: str) -> list[tuple[int, float]]:
        return [(event.step, event.value) for event in seen.Scalars(name)]

    assert scalars("mutation/score") == [(1, 0.75)]
    assert scalars("mutation/gain") == [(1, -0.25)]
    assert scalars("loss/mutation-1-1") == [(500, 3.5), (1000, 2.5)]
    [text] = seen.Tensors("mutation-1/title/text_summary")
    assert text.tensor_proto.string_val == [b"halve it"]


def test_trackio_gets_one_run_per_attempt(record: Attempt, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("trackio", reason="needs the extra [trackio]")
    monkeypatch.delenv("TRACKIO_DIR", raising=False)
    script = (
        "import pickle, sys; from pathlib import Path;"
        "from pytest_autoresearch.trackers import trackio as adapter;"
        "record = pickle.load(open(sys.argv[1], 'rb'));"
        "adapter.pytest_autoresearch_attempt_finished(record, {'ledger': Path(sys.argv[2])})"
    )
    (tmp_path / "record").write_bytes(pickle.dumps(record))
    ledger = tmp_path / ".autoresearch/night/ledger.sqlite"
    subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "record"), str(ledger)],
        check=True, env={**os.environ, "HF_HUB_OFFLINE": "1"}, timeout=120,
    )  # fmt: skip
    [path] = (tmp_path / ".autoresearch/trackio").glob("night*.db")
    db = sqlite3.connect(path)
    [(name, metrics)] = db.execute("SELECT run_name, metrics FROM metrics").fetchall()
    assert name == "mutation-1"
    assert json.loads(metrics)["score"] == 0.75
