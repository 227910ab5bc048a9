"""Exports as JSON lines and CSV."""

from __future__ import annotations

import csv
import io
import json
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from support import campaigns as made_up
from support.project import Project

from pytest_autoresearch.core.errors import UsageError
from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.core.run import Purpose, Run
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import exports

MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@settings(max_examples=30, suppress_health_check=[HealthCheck.too_slow])
@given(made_up.campaigns)
def test_exports_hold_every_attempt_and_run(data) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        ledger = Ledger.open(Path(folder), "demo")
        made_up.write(ledger, data)
        attempts = ledger.attempts()
        ledger.close()
    lines = [json.loads(line, parse_constant=pytest.fail) for line in exports.jsonl(attempts).splitlines()]  # fmt: skip
    assert [(line["name"], line["title"], len(line["runs"])) for line in lines] == [
        (attempt.name, attempt.title, len(attempt.runs)) for attempt in attempts
    ]
    assert [[e["replace"] for e in line["edits"]] for line in lines] == [
        [edit.replace for edit in attempt.edits] for attempt in attempts
    ]
    by_attempt = list(csv.DictReader(io.StringIO(exports.attempts_csv(attempts))))
    assert [row["attempt"] for row in by_attempt] == [attempt.name for attempt in attempts]
    scores = [row.get("score", "") for row in by_attempt]
    assert scores == ["" if attempt.score is None else repr(attempt.score) for attempt in attempts]
    by_run = list(csv.DictReader(io.StringIO(exports.runs_csv(attempts))))
    assert [(row["attempt"], row["seed"]) for row in by_run] == [
        (attempt.name, str(run.seed)) for attempt in attempts for run in attempt.runs
    ]


def attempt(number: int, verdict: str = "discard", **values) -> Attempt:
    defaults = {"title": f"idea {number}", "finished": 2.0, "verdict": verdict, "session_id": 1}
    return Attempt(
        number + 3, f"mutation-{number:04d}", "mutation", number,
        worker="main", state="done", started=1.0, **{**defaults, **values},
    )  # fmt: skip


def test_csv_escapes_formulas() -> None:
    nasty = ['=HYPERLINK("http://x")', "+1", "-1", "@SUM(A1)", "\t=1", "a\0b"]
    rows = list(csv.DictReader(io.StringIO(exports.attempts_csv([attempt(i, title=t) for i, t in enumerate(nasty)]))))  # fmt: skip
    assert all(row["title"][0] not in "=+-@\t" for row in rows)
    assert [row["title"].lstrip("'") for row in rows[:5]] == nasty[:5]


@pytest.mark.parametrize("title", ["=1+cmd", "====1+cmd", "+1", "-1", "@x", "\t=1"])
def test_tsv_escapes_formulas(title: str) -> None:
    [_, row] = exports.tsv([attempt(1, title=title)]).splitlines()
    assert row.rpartition("\t")[2] == "'" + title.strip()


def test_tsv_has_one_row_for_the_baselines_with_the_mean_of_their_seeds() -> None:
    def baseline(number: int, score: float, purpose: Purpose) -> Attempt:
        return Attempt(
            number, f"baseline-{number}", "baseline", number, 1, "main", "done", 1.0,
            verdict="baseline", score=score, commit="abcdef123",
            runs=(Run("ok", score=score, purpose=purpose, peak_memory_bytes=number << 30),),
        )  # fmt: skip

    attempts = [
        baseline(1, 1.0, Purpose.CALIBRATE),
        baseline(2, 2.0, Purpose.CALIBRATE),
        baseline(3, 9.0, Purpose.REPEAT),
        attempt(1, "keep", score=1.25, commit="123456789"),
    ]
    assert exports.tsv(attempts).splitlines()[1:] == [
        "abcdef1\t1.500000\t2.0\tkeep\tbaseline",
        "1234567\t1.250000\t0.0\tkeep\tidea 1",
    ]


def test_csv_keeps_numbers_and_leaves_nan_empty() -> None:
    [row] = csv.DictReader(
        io.StringIO(exports.attempts_csv([attempt(1, gain=-0.5, score=float("nan"))]))
    )
    assert (row["gain"], row["score"]) == ("-0.5", "")


def test_file_name_selects_the_export(tmp_path: Path) -> None:
    for name, start in (("a.jsonl", '{"id"'), ("a.csv", "attempt,"), ("a-runs.csv", "")):
        exports.write(tmp_path / name, [attempt(1)])
        assert (tmp_path / name).read_text().startswith(start)
    with pytest.raises(UsageError, match="name it"):
        exports.write(tmp_path / "a.parquet", [attempt(1)])


def test_reported_figures_are_csv_columns(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path, "t")
    made_up.write(ledger, {"attempts": [], "drafts": []})
    row = made_up.start(ledger, 1, "mutation", 1)
    result = Run("ok", score=1.0, metrics={"mfu": 38.5}, sandbox={"pid": "ok"})
    made_up.run(ledger, row, 7, "first", result)
    *_, last = csv.DictReader(io.StringIO(exports.runs_csv(ledger.attempts())))
    assert (last["attempt"], last["seed"]) == ("mutation-1", "7")
    assert (last["metric_mfu"], last["sandbox_pid"]) == ("38.5", "ok")


def test_report_command_writes_the_requested_files(project: Project) -> None:
    project.propose(0.5, 1.5)
    project.run("--iterations=2", "--autoresearch-confirm=0")

    done = project.command("report", "--export=a.jsonl", "--export=a-runs.csv", "--junit=a.xml")
    assert (done.returncode, done.stdout) == (0, "")
    lines = (project.path / "a.jsonl").read_text().splitlines()
    assert [json.loads(line)["verdict"] for line in lines][6:] == ["keep", "discard"]
    runs = list(csv.DictReader((project.path / "a-runs.csv").open(newline="")))
    assert {row["purpose"] for row in runs} == {"calibrate", "first", "repeat"}
    assert b'name="mutation-0001"' in (project.path / "a.xml").read_bytes()
    refused = project.command("report", "--export=a.parquet")
    assert (refused.returncode, "name it" in refused.stderr) == (4, True)
