"""Errors before the start: one line with the remedy, exit code 4, nothing spent."""

from __future__ import annotations

import os
import subprocess

import pytest
from support.project import Project, git


def refused(project: Project, *args: str, says: str) -> None:
    if not (project.path / "ideas").exists():
        project.propose(0.5)
    result = project.run("--iterations=1", *args)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{says}*"])
    assert "Traceback" not in result.stderr.str() + result.stdout.str()


def test_not_a_git_repository(project: Project) -> None:
    subprocess.run(["rm", "-rf", str(project.path / ".git")], check=True)
    refused(project, says="not in a git repository; run: git init")


def test_no_commits(project: Project) -> None:
    subprocess.run(["rm", "-rf", str(project.path / ".git")], check=True)
    git(project.path, "init", "-q")
    refused(project, says="has no commits; run: git add")


def test_program_missing(project: Project) -> None:
    (project.path / "program.md").unlink()
    refused(project, says="program.md is missing")


def test_editable_file_missing(project: Project) -> None:
    (project.path / "train.py").unlink()
    refused(project, says="train.py is missing")


def test_uncommitted_changes_of_an_editable_file(project: Project) -> None:
    project.write("train.py", "print('mine')\n")
    project.propose(0.5)
    refused(project, says="train.py has uncommitted changes*git commit train.py*")
    assert (project.path / "train.py").read_text() == "print('mine')\n"


NO_FILTERS = """
import errno, os
from pytest_autoresearch.sandbox import seccomp, syscalls
syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
refuse = seccomp.on(os.uname().machine, "seccomp", seccomp.fail(errno.EPERM))
seccomp.load(seccomp.assemble([seccomp.LOAD_NUMBER, *refuse, seccomp.PASS]))
"""


def test_machine_that_cannot_confine_a_candidate_where_this_is_required(project: Project) -> None:
    conftest = (project.path / "conftest.py").read_text()
    project.write("conftest.py", NO_FILTERS + conftest)
    refused(
        project, "--autoresearch-sandbox=require",
        says="--autoresearch-sandbox=require: this machine cannot confine keyrings, page cache *",
    )  # fmt: skip


def test_unknown_proposer(project: Project) -> None:
    refused(project, "--autoresearch-proposer=genius", says="'genius' is unknown; choose")


@pytest.mark.parametrize(
    ("option", "says"),
    [
        ("--autoresearch-budget=0s", "--autoresearch-budget=0s: the budget '0s' is not positive"),
        ("--autoresearch-budget=soon", "'soon' is not a budget; write 300s"),
        ("--iterations=-1", "--iterations=-1: must be 0 or more"),
        ("--autoresearch-tag=a/../b", "a tag has letters"),
        ("--autoresearch-judge=me", "choose one of sequential, greedy, threshold"),
        ("--iterations=x", "--iterations=x: write a whole number"),
        ("--autoresearch-control=x", "--autoresearch-control=x: write a whole number"),
        ("--autoresearch-target=low", "--autoresearch-target=low: write a number"),
        ("--autoresearch-max-noise=low", "--autoresearch-max-noise=low: write a number"),
        ("--autoresearch-deadline=never", "'never' is not a duration; write 8h, 30min or 90s"),
        ("--autoresearch-sandbox=maybe", "choose one of require, auto, off"),
    ],
)
def test_bad_values_name_the_option_and_the_remedy(
    project: Project, option: str, says: str
) -> None:
    refused(project, option, says=says)


def test_bad_ini_values_name_the_key(project: Project) -> None:
    project.write("pytest.ini", "[pytest]\nautoresearch_budget = soon\n")
    refused(project, says="ini key autoresearch_budget=soon: 'soon' is not a budget")


def test_a_checked_out_campaign_branch_is_refused(project: Project) -> None:
    project.propose(0.5)
    git(project.path, "switch", "-qc", "autoresearch/main")
    refused(project, "--autoresearch-tag=main", says="is checked out*git switch -*")


def test_a_foreign_commit_on_the_campaign_branch_is_refused(project: Project) -> None:
    project.propose(0.5)
    git(project.path, "branch", "autoresearch/main")
    refused(project, says="does not belong to this campaign; rename it*")


def test_a_second_session_on_a_running_campaign_is_refused(project: Project) -> None:
    project.propose(0.5)
    ledger = project.ledger()
    ledger.begin_session(driver="another")
    refused(project, says=f"is being worked on by process {os.getpid()}*--autoresearch-tag*")


def test_another_budget_for_an_existing_campaign_is_refused(project: Project) -> None:
    project.propose(0.5)
    project.run("--iterations=1")
    refused(
        project, "--autoresearch-budget=7s", says="scores under different budgets cannot be compared*"
    )


def test_data_not_prepared(project: Project) -> None:
    project.write(
        "conftest.py",
        "import pytest\nfrom pathlib import Path\n"
        "from pytest_autoresearch import Experiment\n"
        "@pytest.fixture(scope='session')\n"
        "def experiment():\n    return Experiment(data=Path('.autoresearch/data/stdlib'))\n",
    )
    refused(project, says="python prepare.py*")


def test_the_former_name_of_the_search_space_is_refused(project: Project) -> None:
    project.write("program.md", "---\nknobs:\n  LR: [0.1, 0.2]\n---\n# lower it\n")
    refused(project, says="program.md: knobs is named search_space now; rename it")


def test_a_declaration_of_the_wrong_type(project: Project) -> None:
    project.write(
        "conftest.py",
        "import pytest\n@pytest.fixture(scope='session')\ndef experiment():\n    return 3\n",
    )
    refused(project, says="returned int; return a pytest_autoresearch.Experiment")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_unwritable_directory(project: Project) -> None:
    project.path.chmod(0o555)
    try:
        refused(project, says="cannot be written*")
    finally:
        project.path.chmod(0o755)


def test_a_file_where_the_ledger_should_be(project: Project) -> None:
    project.write(".autoresearch", "in the way")
    refused(project, says=".autoresearch cannot be written*")


@pytest.mark.parametrize("option", ["--junitxml", "--autoresearch-html", "--autoresearch-summary"])
@pytest.mark.parametrize("place", ["program.md/log", "/proc/nowhere/log"])
def test_output_that_cannot_be_written(project: Project, option: str, place: str) -> None:
    refused(project, f"{option}={place}", says=f"{option}: *{place} cannot be written (*")
    assert not project.ledger().attempts()
