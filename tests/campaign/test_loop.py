"""Campaigns end to end: real git, real subprocesses, recorded proposals."""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from support.project import Project, git


def test_session_keeps_gains_and_records_the_rest(project: Project) -> None:
    project.propose(1.2, 0.5, "no edits here\n", 0.7)
    result = project.run("--iterations=4", "--junitxml=log.xml")
    assert result.ret == 0
    assert project.verdicts() == ["discard", "keep", "invalid", "discard"]
    ledger = project.ledger()
    assert [champion.version for champion in ledger.champions()] == [1, 2]
    branch = git(project.path, "rev-parse", "autoresearch/main")
    assert branch == ledger.champion().commit
    assert git(project.path, "log", "-1", "--format=%s", branch) == "score 0.5 (+0.500000)"
    assert "SCORE = 0.5" in git(project.path, "show", f"{branch}:train.py")
    tried = git(project.path, "for-each-ref", "--format=%(refname)", "refs/autoresearch/main/")
    assert "refs/autoresearch/main/mutation-0001" in tried
    assert git(project.path, "show", "refs/autoresearch/main/mutation-0001:train.py").count("1.2")


def test_result_lines_and_summary_show_every_verdict(project: Project) -> None:
    project.propose(0.5, 1.5)
    result = project.run("--iterations=2")
    result.stdout.fnmatch_lines(
        [
            "*campaign main (new), branch autoresearch/main*",
            "*B 1.000*baseline-1*",
            "*K 0.5*mutation-0001 score 0.5*",
            "*D 1.5*mutation-0002 score 1.5*",
            "*2 attempts (1 kept, 1 discarded)*",
            "*champion*val_bpb 0.5*",
            "*git merge autoresearch/main*",
        ]
    )


def test_discards_exit_with_0_unless_strict(project: Project) -> None:
    project.propose(1.5, 1.6, 1.7)
    assert project.run("--iterations=1").ret == 0
    assert project.run("--iterations=1", "--autoresearch-strict").ret == 1
    assert project.run("--iterations=1", "--autoresearch-min-keep=1").ret == 1


def test_runxfail_reports_a_discard_as_a_failure(project: Project) -> None:
    project.propose(1.5)
    result = project.run("--iterations=1", "--runxfail")
    result.stdout.fnmatch_lines(["*discard: 1.50*is not better than*"])


def test_session_fails_if_every_attempt_crashed(project: Project) -> None:
    project.propose("undefined_name")
    assert project.run("--iterations=1").ret == 1
    assert project.verdicts() == ["crash"]
    [attempt] = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert "undefined_name" in attempt.reason


def test_broken_baseline_stops_the_session_before_any_proposal(project: Project) -> None:
    project.write("train.py", "raise SystemExit('no data')\n")
    project.commit("broken")
    project.propose(0.5)
    result = project.run("--iterations=2")
    assert result.ret == 1
    assert "keep" not in project.verdicts()


@pytest.mark.parametrize("bad", ["nan", "float('inf')", "None"])
def test_score_that_is_not_a_number_is_a_crash(project: Project, bad: str) -> None:
    project.propose(f"0.1\nSCORE = {bad}" if "\n" in bad else bad)
    project.run("--iterations=1")
    assert project.verdicts() == ["crash"]


def test_scores_compare_by_direction(make_project) -> None:
    project = make_project("accuracy", "max")
    project.propose(0.5, 1.5)
    project.run("--iterations=2")
    assert project.verdicts() == ["discard", "keep"]


def test_second_session_resumes_after_the_last_attempt(project: Project) -> None:
    project.propose(0.9, 0.8, 0.7)
    project.run("--iterations=1")
    result = project.run("--iterations=1", "--junitxml=log.xml")
    result.stdout.fnmatch_lines(["*resumed at attempt 2*"])
    result.stdout.no_fnmatch_line("*baseline-1*calibrated*")
    attempts = project.ledger().attempts()
    assert [s.name for s in attempts if s.kind == "mutation"] == ["mutation-0001", "mutation-0002"]
    assert sum(s.kind == "baseline" for s in attempts) == 6
    assert "mutation-0001" in project.cases()


def test_numbers_that_a_dead_worker_left_are_used_by_the_next_session(project: Project) -> None:
    project.propose(0.9, 0.8, 0.7, 0.6)
    project.run("--iterations=3", "--autoresearch-confirm=0")
    ledger = project.ledger()
    with ledger._write() as db:
        db.execute("UPDATE attempts SET number = 4, name = 'mutation-0004' WHERE number = 3"
                   " AND kind = 'mutation'")  # fmt: skip
    ledger.close()
    project.run("--iterations=2", "--autoresearch-confirm=0")
    names = [s.name for s in project.ledger().attempts() if s.kind == "mutation"]
    assert names == [f"mutation-{n:04d}" for n in (1, 2, 4, 3, 5)]


def test_duplicate_program_is_not_trained(project: Project) -> None:
    hidden = (
        "Title: the same in other words\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
        "SCORE = 3.0 * 0.5  # again\n>>>>>>> REPLACE\n"
    )
    project.propose(1.5, hidden)
    project.run("--iterations=2")
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert [s.verdict for s in attempts] == ["discard", "duplicate"]
    assert attempts[1].runs == ()
    assert "mutation-0001" in attempts[1].reason


def test_mutation_of_comments_only_is_refused(project: Project) -> None:
    project.propose(
        "Title: nothing\n\ntrain.py\n<<<<<<< SEARCH\nSCORE = 1.0\n=======\n"
        "SCORE = 1.0  # better\n>>>>>>> REPLACE\n"
    )
    project.run("--iterations=1")
    assert project.verdicts() == ["invalid"]


def test_the_users_files_are_not_touched(project: Project) -> None:
    project.write("notes.txt", "untracked")
    project.write("program.md", "# lower it\nuncommitted thoughts\n")
    project.write("staged.txt", "staged")
    git(project.path, "add", "staged.txt")
    project.propose(0.5, 1.5, "syntax error (")

    def picture() -> dict[str, bytes]:
        return {
            str(path.relative_to(project.path)): path.read_bytes()
            for path in sorted(project.path.rglob("*"))
            if path.is_file()
            and ".git/objects" not in str(path)
            and ".git/refs" not in str(path)
            and ".git/logs/refs/heads/autoresearch" not in str(path)
            and ".autoresearch" not in str(path)
            and path.name not in ("results.tsv", "stdout", "stderr")
            and "__pycache__" not in str(path)
        }

    before = picture()
    head = git(project.path, "rev-parse", "HEAD")
    project.run("--iterations=3")
    assert project.verdicts() == ["keep", "discard", "invalid"]
    assert picture() == before
    assert git(project.path, "rev-parse", "HEAD") == head
    assert "staged.txt" in git(project.path, "diff", "--cached", "--name-only")


def test_user_hooks_and_signing_do_not_run(project: Project) -> None:
    for hook in ("pre-commit", "post-commit", "reference-transaction", "commit-msg"):
        path = project.path / ".git/hooks" / hook
        path.write_text(f"#!/bin/sh\ntouch '{project.path}/hook-ran'\nexit 1\n")
        path.chmod(0o755)
    git(project.path, "config", "commit.gpgsign", "true")
    project.propose(0.5)
    project.run("--iterations=1")
    assert project.verdicts() == ["keep"]
    assert not (project.path / "hook-ran").exists()


def test_junit_has_one_valid_testcase_per_attempt(project: Project) -> None:
    import xmlschema

    project.propose(0.5, 1.5, "not python (")
    project.run("--iterations=3", "--junitxml=log.xml")
    cases = project.cases()
    assert [name for name in cases if name.startswith("mutation")] == [
        "mutation-0001", "mutation-0002", "mutation-0003",
    ]  # fmt: skip
    facts = {p.get("name"): p.get("value") for p in cases["mutation-0001"].iter("property")}
    assert facts["verdict"] == "keep"
    assert float(facts["val_bpb"]) == pytest.approx(0.5, abs=0.001)
    assert facts["commit"] == project.ledger().champion().commit
    assert cases["mutation-0002"].find("skipped").get("type") == "pytest.xfail"
    assert "SCORE = 0.5" in cases["mutation-0001"].find("system-out").text

    import xml.etree.ElementTree as ElementTree

    tree = ElementTree.parse(project.path / "log.xml")
    for case in [*tree.iter("testcase"), *tree.iter("testsuite")]:
        for holder in case.findall("properties"):
            case.remove(holder)
    schema = xmlschema.XMLSchema(Path(__file__).parents[1] / "junit-xunit2.xsd")
    schema.validate(tree)


def test_results_tsv_has_the_columns_of_autoresearch(project: Project) -> None:
    project.propose(0.5, 1.5)
    project.run("--iterations=2")
    rows = [line.split("\t") for line in (project.path / "results.tsv").read_text().splitlines()]
    assert rows[0] == ["commit", "val_bpb", "memory_gb", "status", "description"]
    assert [row[3] for row in rows[-2:]] == ["keep", "discard"]


def test_without_the_flag_nothing_is_collected(project: Project) -> None:
    project.write("test_mine.py", "def test_mine(): pass\n")
    result = project.pytester.runpytest_subprocess("-p", "no:cacheprovider")
    result.assert_outcomes(passed=1)
    assert not (project.path / ".autoresearch").exists()


def test_collect_only_and_setup_plan_write_nothing(project: Project) -> None:
    project.propose(0.5)
    for option in ("--collect-only", "--setup-plan"):
        result = project.run("--iterations=2", option)
        assert result.ret == 0
        result.stdout.fnmatch_lines(["*mutation-0002*"])
    assert not (project.path / ".autoresearch/main").exists()


def test_one_attempt_can_be_picked_by_name(project: Project) -> None:
    project.propose(0.9, 0.8)
    project.run("--iterations=2", "-k", "mutation-0002")
    attempts = project.ledger().attempts()
    assert [s.name for s in attempts if s.kind == "mutation"] == ["mutation-0002"]
    assert sum(s.kind == "baseline" for s in attempts) == 6


def test_exhausted_replay_ends_the_session(project: Project) -> None:
    project.propose(1.5)
    result = project.run("--iterations=0")
    assert result.ret == 0
    result.stdout.fnmatch_lines(["*all 1 recorded proposals are used*"])


def test_stop_file_ends_the_session(project: Project) -> None:
    project.propose(1.5, 1.6, 1.7)
    (project.path / ".autoresearch/main").mkdir(parents=True)
    (project.path / ".autoresearch/main/STOP").touch()
    result = project.run("--iterations=0")
    assert result.ret == 0
    assert project.verdicts() == []


def test_two_workers_share_one_campaign_with_any_testpaths(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\ntestpaths = tests\n")
    project.write("tests/test_other.py", "def test_other(): raise AssertionError\n")
    project.propose(0.9, 1.5, 0.8, 1.6, 0.7, 1.7)
    result = project.run("--iterations=6", "-n2", "--junitxml=log.xml", timeout=300)
    assert result.ret == 0
    attempts = project.ledger().attempts()
    assert sorted(s.name for s in attempts if s.kind == "mutation") == [
        f"mutation-{i:04d}" for i in range(1, 7)
    ]
    assert sum(s.kind == "baseline" for s in attempts) == 6
    assert len({s.worker for s in attempts}) == 2
    assert {name for name in project.cases() if name.startswith("mutation")} == {
        f"mutation-{i:04d}" for i in range(1, 7)
    }


def test_concurrent_keeps_are_judged_again_against_the_new_champion(
    project: Project,
) -> None:
    project.propose(*(round(0.95 - 0.05 * i, 2) for i in range(12)))
    result = project.run("--iterations=12", "-n4", "--autoresearch-confirm=0", timeout=300)
    assert result.ret == 0, result.stdout.str()
    ledger = project.ledger()
    attempts = [attempt for attempt in ledger.attempts() if attempt.kind == "mutation"]
    assert len(attempts) == 12
    assert all(attempt.verdict in ("keep", "discard") for attempt in attempts)
    means = [champion.mean for champion in ledger.champions()]
    assert means == sorted(means, reverse=True)
    assert means[-1] == pytest.approx(0.4, abs=1e-3)


def _start(
    project: Project, *args: str, stdout: int = subprocess.DEVNULL
) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "pytest", "--autoresearch", "-p", "no:cacheprovider",
         "--autoresearch-proposer=replay:ideas", "--junitxml=log.xml", *args],
        cwd=project.path, stdout=stdout, stderr=subprocess.DEVNULL,
        preexec_fn=_as_from_a_terminal,
    )  # fmt: skip


def _as_from_a_terminal() -> None:
    """Whoever runs these tests may have had signals ignored (``&``, ``nohup``)."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


def _wait_for(condition, seconds: float = 60.0) -> None:
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, "did not happen"
        time.sleep(0.05)


def _processes(folder: Path) -> list[int]:
    """Processes whose working directory lies in `folder`."""
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            if int(entry.name) != os.getpid() and os.readlink(entry / "cwd").startswith(
                str(folder)
            ):
                found.append(int(entry.name))
        except OSError:
            continue
    return found


SLOW = (
    "Title: slow\n\ntrain.py\n<<<<<<< SEARCH\nSLEEP = 0.0\n=======\nSLEEP = 8.0\n>>>>>>> REPLACE\n"
)


def _running(project: Project) -> bool:
    if not (project.path / ".autoresearch/main/ledger.sqlite").exists():
        return False
    runs = project.ledger().runs()
    return bool(runs) and runs[-1].state == "running" and runs[-1].purpose == "first"


def test_session_resumes_after_kill_9_without_losing_finished_attempts(project: Project) -> None:
    project.propose(0.9, SLOW, 0.8)
    process = _start(project, "--iterations=3")
    _wait_for(lambda: _running(project) and len(project.verdicts()) == 2)
    process.kill()
    process.wait()
    _wait_for(lambda: not _processes(project.path))
    assert project.verdicts()[0] == "keep"
    assert {"mutation-0001"} <= set(project.cases())
    assert project.run("--iterations=2").ret == 0
    attempts = [s for s in project.ledger().attempts() if s.kind == "mutation"]
    assert attempts[1].state == "interrupted"
    assert attempts[2].title == "slow"
    assert attempts[2].verdict == "discard"


def test_ctrl_c_requeues_the_proposal_and_leaves_no_process(project: Project) -> None:
    project.propose(SLOW)
    process = _start(project, "--iterations=1")
    _wait_for(lambda: _running(project))
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=60) == 2
    _wait_for(lambda: not _processes(project.path))
    assert project.verdicts() == ["interrupted"]
    assert project.ledger().sessions()[0].ended is not None


@pytest.mark.parametrize("signals", ["HUP", "INT TERM TERM"])
def test_sighup_and_sigterm_end_the_session_in_order(project: Project, signals: str) -> None:
    project.propose(SLOW)
    process = _start(project, "--iterations=1")
    _wait_for(lambda: _running(project))
    for name in signals.split():
        process.send_signal(getattr(signal, f"SIG{name}"))
        time.sleep(0.2)
    assert process.wait(timeout=60) == 2
    assert project.verdicts() == ["interrupted"]
    assert project.ledger().sessions()[0].exit == 2
    page = (project.path / ".autoresearch/report.html").read_text()
    assert "the campaign is running" not in page


def test_session_survives_a_closed_output(project: Project) -> None:
    project.propose(SLOW.replace("8.0", "1.5"), 0.9)
    master, terminal = pty.openpty()
    process = _start(project, "--iterations=2", "--autoresearch-confirm=0", stdout=terminal)
    os.close(terminal)
    _wait_for(lambda: _running(project))
    os.close(master)
    process.wait(timeout=60)
    assert project.verdicts() == ["discard", "keep"]
    assert project.ledger().sessions()[0].exit == 0


def test_text_that_cannot_be_stored_gets_a_verdict(project: Project) -> None:
    project.write(
        "mine.py",
        """
from pytest_autoresearch import Edit
from pytest_autoresearch import Proposal

IDEAS = [("half a \\ud800", "SCORE = 0.9\\n"), ("a\\0b", "SCORE = 0.8\\n"), ("", "# \\ud800\\n")]

class Mine:
    name = "mine"
    def __init__(self, *_):
        pass
    def propose(self, context):
        said, code = IDEAS[context.attempt - 1]
        edit = Edit("train.py", "# ideas go here", code + "# ideas go here")
        return Proposal("x", (edit,), said)
    def close(self):
        pass
""",
    )
    project.pytester.syspathinsert()
    result = project.run(
        "--iterations=3", "--autoresearch-confirm=0", "--autoresearch-proposer=mine:Mine"
    )
    assert result.ret == 0
    assert project.verdicts() == ["keep", "keep", "invalid"]
