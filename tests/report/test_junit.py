"""The junit log: complete and readable by other tools."""

from __future__ import annotations

import tempfile
import xml.etree.ElementTree as ElementTree
from dataclasses import replace
from pathlib import Path

import junitparser
import pytest
import xmlschema
from hypothesis import HealthCheck, given, settings
from support import campaigns as made_up
from support.project import Project

from pytest_autoresearch import Metric
from pytest_autoresearch.core.proposal import Edit, Proposal, Usage
from pytest_autoresearch.core.records import CheckNote
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.report import columns, junit
from pytest_autoresearch.report.terminal import result_line

SCHEMA = xmlschema.XMLSchema(Path(__file__).parents[1] / "junit-xunit2.xsd")
METRIC = Metric()
NASTY = "]]> <b>&amp;</b> \x00\x07\x1b[31m\x7f\ufffe\r\n\u202e\ud800 tail"

RESULT = Run(
    "ok", score=0.25, score_se=0.001, score_kind="trusted", train_seconds=30.5, total_seconds=41.25,
    cpu_seconds=29.0, work=6e5, steps=586, parameters=294_980, peak_memory_bytes=300 * 2**20,
    curve=((0.5, 3.25), (1.0, 2.5)), log_tail=f"loss: 2.5\n{NASTY}",
    metrics={"mfu_percent": 38.5}, sandbox={"landlock": "ok", "pid": "failed: EPERM"},
    hashes={"data": "d" * 64, "evaluator": "e" * 64},
)  # fmt: skip

PROPOSAL = Proposal(
    "halve it", (Edit("train.py", "A = 2\n", f"A = 1  # {NASTY}"),), "because",
    proposer="anthropic",
    usage=Usage("some-model", 100, 20, 3, 400, requests=2, cost_usd=0.125, seconds=9.0),
)  # fmt: skip


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    """A campaign with one keep that has every figure."""
    ledger = Ledger.open(tmp_path, "demo")
    made_up.write(ledger, {"attempts": [], "drafts": []})
    attempt = made_up.start(ledger, 1, "mutation", 1)
    ledger.save_proposal(attempt, PROPOSAL, parent=1)
    ledger.add_check_notes(
        attempt, [CheckNote("parses", True), CheckNote("guard steps", False, "too many")]
    )
    made_up.run(ledger, attempt, 1, "first", RESULT)
    made_up.run(ledger, attempt, 2, "replicate", replace(RESULT, score=0.75))
    ledger.promote(
        1, attempt, "c" * 40, {1: 0.25, 2: 0.75},
        outcome={
            "verdict": "keep", "score": 0.5, "n": 2, "gain": 0.5, "gain_sigma": 3.5, "bar": 0.9,
            "parent": 1, "champion_before": 1, "commit": "c" * 40,
        },
    )  # fmt: skip
    return ledger


def render(ledger: Ledger, **changes) -> bytes:
    champions = ledger.champions()
    facts = {"campaign": "demo"}
    return b"".join(
        junit.render(ledger.attempts(), METRIC, facts, champions=champions, **changes)
    )


def facts(data: bytes, name: str) -> dict[str, str]:
    [case] = [c for c in ElementTree.fromstring(data).iter("testcase") if c.get("name") == name]
    return {p.get("name"): p.get("value") for p in case.iter("property")}


def assert_strict_readers_take_it(data: bytes) -> None:
    root = ElementTree.fromstring(data)
    for parent in [*root.iter("testsuite"), *root.iter("testcase")]:
        for holder in parent.findall("properties"):
            parent.remove(holder)
    SCHEMA.validate(ElementTree.ElementTree(root))


def test_testcase_has_every_figure_of_its_attempt(ledger: Ledger) -> None:
    found = facts(render(ledger), "mutation-1")
    wanted = {
        "title": "halve it", "verdict": "keep", "val_bpb": "0.5", "champion_before": "baseline-1",
        "champion_before_mean": "1.0015", "champion_after": "mutation-1",
        "champion_after_mean": "0.5", "gain": "0.5", "gain_sigma": "3.5", "seeds": "1 2",
        "scores": "1=0.25 2=0.75", "replicates": "2", "commit": "c" * 40, "parent": "baseline-1",
        "hypothesis": "because", "proposer": "anthropic", "model": "some-model", "tokens": "523",
        "input_tokens": "100", "output_tokens": "400", "dollars": "0.125",
        "training_seconds": "30.5", "total_seconds": "82.5", "peak_memory_mb": "300.0",
        "mfu_percent": "38.5", "steps": "586", "parameters": "294980",
        "checks": "parses=ok guard-steps=no", "refused_by": "guard steps: too many",
        "sandbox": "landlock=ok pid=failed", "hash_data": "d" * 64,
    }  # fmt: skip
    assert {name: found.get(name) for name in wanted} == wanted


def test_message_has_the_key_figures_and_output_the_diff(ledger: Ledger) -> None:
    attempt = made_up.start(ledger, 1, "mutation", 2)
    ledger.save_proposal(attempt, PROPOSAL, parent=4)
    made_up.run(ledger, attempt, 1, "first", RESULT)
    ledger.finish_attempt(
        attempt, verdict="discard", score=0.6, n=1, gain=-0.1, gain_sigma=-1.25, commit="d" * 40,
        reason="not better",
    )  # fmt: skip
    root = ElementTree.fromstring(render(ledger))
    [case] = [c for c in root.iter("testcase") if c.get("name") == "mutation-2"]
    message = case.find("skipped").get("message")
    for fact in ("discard", "val_bpb 0.600000", "-0.100000", "1.2 sigma", "1 seed", "some-model",
                 "dddddddddd", "halve it", "not better"):  # fmt: skip
        assert fact in message
    output = case.findtext("system-out")
    assert "<<<<<<< SEARCH\nA = 2\n" in output
    assert "loss: 2.5" in output


def test_suite_has_campaign_totals_and_versions(ledger: Ledger) -> None:
    root = ElementTree.fromstring(render(ledger))
    found = {p.get("name"): p.get("value") for p in root.find("testsuite/properties")}
    wanted = {
        "campaign": "demo", "total_attempts": "1", "total_keep": "1", "total_runs": "4",
        "total_tokens": "523", "total_dollars": "0.1250", "devices": "cpu",
    }  # fmt: skip
    assert {name: found.get(name) for name in wanted} == wanted
    assert {"python", "torch", "pytest"} <= set(found)


def test_attempts_of_earlier_sessions_are_marked(ledger: Ledger) -> None:
    ledger.end_session(1, 0)
    session = ledger.begin_session(driver="second session")
    made_up.start(ledger, session, "mutation", 2)
    data = render(ledger, first_session=session)
    assert facts(data, "mutation-1")["earlier_session"] == "true"
    assert "earlier_session" not in facts(data, "mutation-2")
    assert "in flight" in data.decode()


def test_only_this_sessions_faults_are_errors(ledger: Ledger) -> None:
    for number, state in enumerate(("interrupted", "infra"), 2):
        ledger.abandon_attempt(made_up.start(ledger, 1, "mutation", number), state, "cut off")
    ledger.end_session(1, 2)
    later = ledger.begin_session(driver="later")
    ledger.abandon_attempt(made_up.start(ledger, later, "mutation", 4), "infra", "no disk")
    suite = ElementTree.fromstring(render(ledger, first_session=later))[0]
    assert (suite.get("errors"), suite.get("skipped")) == ("1", "2")
    results = {c.get("name"): next(x for x in c if x.tag != "properties") for c in suite[1:]}
    assert results["mutation-2"].tag == results["mutation-3"].tag == "skipped"
    assert results["mutation-2"].get("message") == "interrupted: cut off"
    assert (results["mutation-4"].tag, results["mutation-4"].get("message")) == (
        "error", "infra: no disk",
    )  # fmt: skip


def test_log_is_made_in_parts(ledger: Ledger) -> None:
    attempts = ledger.attempts() * 100
    parts = list(junit.render(attempts, METRIC, {}))
    assert len(parts) == len(attempts) + 2
    assert len(list(ElementTree.fromstring(b"".join(parts)).iter("testcase"))) == len(attempts)


def test_junitparser_reads_it(ledger: Ledger, tmp_path: Path) -> None:
    path = tmp_path / "log.xml"
    junit.write(path, ledger.attempts(), METRIC, {}, champions=ledger.champions())
    [suite] = junitparser.JUnitXml.fromfile(str(path))
    assert (suite.tests, suite.errors, suite.skipped) == (3, 0, 0)
    assert [case.name for case in suite] == ["baseline-1", "baseline-2", "mutation-1"]


def test_any_text_of_a_candidate_is_valid_xml(ledger: Ledger) -> None:
    assert_strict_readers_take_it(render(ledger))


def test_long_logs_are_shortened(ledger: Ledger) -> None:
    attempt = made_up.start(ledger, 1, "mutation", 2)
    made_up.run(ledger, attempt, 1, "first", replace(RESULT, log_tail="x" * 60_000))
    ledger.finish_attempt(attempt, verdict="discard")
    assert render(ledger).count(b"x" * 100) <= junit.LOG_CHARACTERS // 100 + 1


MEMORY = "/dev/shm" if Path("/dev/shm").is_dir() else None


@settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
@given(made_up.campaigns)
def test_any_campaign_has_a_valid_log(data) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as folder:
        ledger = Ledger.open(Path(folder), "demo")
        made_up.write(ledger, data)
        xml = render(ledger)
        assert_strict_readers_take_it(xml)
        names = [case.get("name") for case in ElementTree.fromstring(xml).iter("testcase")]
        assert names == [attempt.name for attempt in ledger.attempts()]
        ledger.close()


def test_metric_may_share_the_name_of_a_figure(ledger: Ledger) -> None:
    attempt = replace(ledger.attempts()[-1], score=0.5)
    figures = dict(junit.properties(attempt, Metric("steps")))
    assert (figures["score"], figures["steps"]) == ("0.5", "586")
    assert result_line(attempt.name, figures, "min").startswith("K 0.500000 ")
    assert '<td class="col-score">0.500000</td>' in columns.row(figures)


def test_log_is_written_where_pytest_would_write_it(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(project.path / "home"))
    project.propose(0.9)
    project.write(
        "tracker.py",
        "def pytest_autoresearch_attempt_finished(record, artifacts):\n"
        "    print(artifacts['junit'].read_text()[:0], end='')\n",
    )
    project.pytester.syspathinsert()
    result = project.run(
        "--iterations=1", "--autoresearch-confirm=0", "--junitxml=~/a/log.xml", "-p", "tracker"
    )
    assert "failed" not in result.stdout.str()  # the file existed while the campaign ran
    assert "mutation-0001" in project.cases("home/a/log.xml")
    assert not (project.path / "~").exists()


COPY = """
import pathlib, pytest

@pytest.hookimpl(trylast=True)
def pytest_sessionfinish():
    pathlib.Path("before-confirmation.xml").write_bytes(pathlib.Path("log.xml").read_bytes())
"""


def test_log_of_all_sessions_is_on_disk_before_champions_are_confirmed(project: Project) -> None:
    project.write("late.py", COPY)
    project.pytester.syspathinsert()
    project.propose(1.5, 0.9)
    options = ("--iterations=1", "--autoresearch-confirm=0", "--junitxml=log.xml", "-p", "late")
    for _ in range(2):
        assert project.run(*options).ret == 0
    cases = project.cases("before-confirmation.xml")
    assert {"baseline-1", "mutation-0001", "mutation-0002"} <= set(cases)


def test_campaign_runs_without_the_junitxml_and_skipping_plugins(project: Project) -> None:
    project.propose(0.9, 1.5)
    result = project.run(
        "--iterations=2", "--autoresearch-confirm=0", "-p", "no:junitxml", "-p", "no:skipping"
    )
    assert result.ret == 0
    assert project.verdicts() == ["keep", "discard"]


def test_logs_are_written_although_another_plugin_fails_at_the_end(project: Project) -> None:
    project.write("late.py", "def pytest_sessionfinish():\n    raise OSError('no space left')\n")
    project.pytester.syspathinsert()
    project.propose(0.9)
    project.run("--iterations=1", "--autoresearch-confirm=0", "-p", "late")
    [session] = project.ledger().sessions()
    assert session.ended is not None
    assert "score 0.9" in (project.path / "results.tsv").read_text()
    page = (project.path / ".autoresearch/report.html").read_text()
    assert "the campaign is running" not in page


def test_log_written_again_has_the_same_campaign_properties(project: Project) -> None:
    project.propose(0.9)
    project.run("--iterations=1", "--autoresearch-confirm=0", "--junitxml=log.xml")
    done = project.command("report", "--junit", "again.xml")
    assert done.returncode == 0
    one, two = (
        {
            p.get("name"): p.get("value")
            for p in ElementTree.parse(project.path / name).findall("testsuite/properties/property")
        }
        for name in ("log.xml", "again.xml")
    )
    assert one == two
    assert one["judge"] == "sequential"
    assert len(one["base_commit"]) == 40
