"""The doctor command."""

from __future__ import annotations

import shutil

import pytest
from support.project import Project


def line(output: str, name: str) -> str:
    return next(row for row in output.splitlines() if row.split()[1] == name)


def test_doctor_passes_on_a_valid_project(project: Project) -> None:
    done = project.command("doctor")
    assert done.returncode == 0, done.stdout + done.stderr
    for name in (
        "python",
        "torch",
        "device",
        "clock",
        "disk",
        "sandbox",
        "git",
        "campaign",
        "keys",
    ):
        assert line(done.stdout, name).split()[0] in ("ok", "warn")
    assert "main is not started yet" in line(done.stdout, "campaign")


def test_doctor_names_keys_without_values(project: Project) -> None:
    done = project.command("doctor", ANTHROPIC_API_KEY="sk-secret-value")
    assert "ANTHROPIC_API_KEY" in line(done.stdout, "keys")
    assert "secret-value" not in done.stdout + done.stderr


def test_doctor_describes_the_campaign(project: Project) -> None:
    project.propose(0.9)
    project.run("--iterations=1", "--autoresearch-confirm=0")
    assert "main: 1 attempts, champion 0.9" in line(project.command("doctor").stdout, "campaign")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: (p / "program.md").unlink(), "program.md"),
        (lambda p: shutil.rmtree(p / ".git"), "git init"),
        (lambda p: (p / "train.py").write_text("changed\n"), "train.py"),
        (lambda p: (p / "conftest.py").write_text("1/0\n"), "ZeroDivisionError"),
    ],
)
def test_doctor_names_a_broken_project_and_exits_with_1(
    project: Project, damage, said: str
) -> None:
    damage(project.path)
    done = project.command("doctor")
    assert done.returncode == 1
    assert said in line(done.stdout, "project")
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize("command", ["doctor", "report", "finalize", "verify", "transfer"])
def test_ledger_of_a_newer_version_is_a_one_line_error(project: Project, command: str) -> None:
    ledger = project.ledger()
    with ledger._write() as db:
        db.execute("PRAGMA user_version = 99")
    ledger.close()
    done = project.command(command)
    assert done.returncode == (1 if command == "doctor" else 4)
    assert "update pytest-autoresearch" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
