"""Two sessions on two machines: the steps of the workflow carry a campaign from one to the other."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from support.project import Project, git

WORKFLOW = Path(__file__).resolve().parent.parent / ".github/workflows/nightly.yml"
JOB = yaml.safe_load(WORKFLOW.read_text())["jobs"]["research"]


def script(name: str) -> str:
    [step] = [step for step in JOB["steps"] if step.get("name") == name]
    return step["run"]


def run(text: str, folder: Path, **env: str) -> None:
    """Run a step's script as the runner does."""
    subprocess.run(
        ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c", text],
        cwd=folder, check=True, timeout=120,
        env={**os.environ, **{name: str(value) for name, value in JOB["env"].items()}, **env},
    )  # fmt: skip


def research(folder: Path, ideas: Path) -> str:
    """Run the research step with recorded ideas and without what only a runner has."""
    text = script("Research").replace(".venv/bin/pytest", f"{sys.executable} -m pytest")
    text = text.replace("--autoresearch-sandbox require", "--autoresearch-sandbox auto")
    text = f"{text.rstrip()} --autoresearch-proposer=replay:{ideas} -p no:cacheprovider"
    run(text, folder, ITERATIONS="2", GITHUB_STEP_SUMMARY="summary.md", ANTHROPIC_API_KEY="")
    return (folder / "summary.md").read_text()


def clone(origin: Path, folder: Path) -> Path:
    """What the checkout step leaves with its whole history."""
    subprocess.run(["git", "clone", "-q", str(origin), str(folder)], check=True)
    return folder


def refs(folder: Path, pattern: str) -> list[str]:
    listing = git(folder, "for-each-ref", "--format=%(refname) %(objectname)", pattern)
    return listing.splitlines()


@pytest.mark.slow
def test_the_second_session_continues_in_a_fresh_clone(project: Project, tmp_path: Path) -> None:
    project.propose(1.5, 0.5, 0.4, 1.6)
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(project.path), str(origin)], check=True)
    one, two = clone(origin, tmp_path / "one"), clone(origin, tmp_path / "two")
    run(script("Fetch yesterday's attempts"), one)
    summary = research(one, project.path / "ideas")
    assert "2 attempts" in summary
    run(script("Push the attempts"), one)
    pushed = refs(one, "refs/autoresearch/")
    assert pushed == refs(origin, "refs/autoresearch/")

    shutil.copytree(one / ".autoresearch", two / ".autoresearch")  # what the cache does
    run(script("Fetch yesterday's attempts"), two)
    assert refs(two, "refs/autoresearch/") == pushed
    summary = research(two, project.path / "ideas")
    assert "4 attempts" in summary
    assert "| mutation-0003 |" in summary
    run(script("Push the attempts"), two)
    [tip] = refs(origin, "refs/heads/autoresearch/")
    assert tip in refs(two, "refs/heads/autoresearch/")
    assert git(two, "log", "--format=%s", f"main..{tip.split()[1]}").splitlines() == [
        "score 0.4 (+0.100000)", "score 0.5 (+0.500000)",
    ]  # fmt: skip


@pytest.mark.slow
def test_a_session_without_the_cache_restores_the_ledger(
    project: Project, tmp_path: Path
) -> None:
    project.propose(0.5, 1.6, 0.4, 0.3)
    origin = tmp_path / "origin.git"
    subprocess.run(["git", "clone", "-q", "--bare", str(project.path), str(origin)], check=True)
    for night, attempts in (("one", 2), ("two", 4)):
        folder = clone(origin, tmp_path / night)
        run(script("Fetch yesterday's attempts"), folder)
        again = script("Restore the ledger if the cache is gone").replace(".venv/bin/python", sys.executable)
        run(again, folder)
        assert f"{attempts} attempts" in research(folder, project.path / "ideas")
        run(script("Push the attempts"), folder)
    assert git(origin, "log", "--format=%s", "main..autoresearch/nightly").splitlines() == [
        "score 0.3 (+0.100000)", "score 0.4 (+0.100000)", "score 0.5 (+0.500000)",
    ]  # fmt: skip


def test_only_the_step_that_proposes_gets_the_key() -> None:
    holders = [step["name"] for step in JOB["steps"] if "secrets." in str(step)]
    assert holders == ["Research"]


def test_nothing_a_stranger_can_write_is_pasted_into_a_script() -> None:
    for step in JOB["steps"]:
        assert not re.search(r"\$\{\{", step.get("run", ""))
