"""The CI recipes: what they call exists, and the summary says what happened."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import yaml
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project

from pytest_autoresearch import Metric
from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.options import OPTIONS
from pytest_autoresearch.report.markdown import cell, sparkline

ROOT = Path(__file__).resolve().parent.parent
NIGHTLY = ROOT / ".github/workflows/nightly.yml"


def steps() -> list[dict]:
    return yaml.safe_load(NIGHTLY.read_text())["jobs"]["research"]["steps"]


def test_the_nightly_workflow_parses_and_its_shell_steps_do() -> None:
    scripts = [step["run"] for step in steps() if "run" in step]
    assert len(scripts) == 5
    for script in scripts:
        plain = re.sub(r"\$\{\{.*?\}\}", "x", script)
        assert subprocess.run(["bash", "-n"], input=plain, text=True, check=False).returncode == 0


def test_the_research_step_execs_pytest_with_options_that_exist() -> None:
    [step] = [step for step in steps() if step.get("name") == "Research"]
    assert step["run"].startswith("exec .venv/bin/pytest --autoresearch ")
    known = {option.flag for option in OPTIONS} | {"--autoresearch", "--junitxml"}
    assert set(re.findall(r"--[a-z][a-z-]+", step["run"])) <= known
    assert "--autoresearch-sandbox require" in step["run"]


def test_every_upload_and_cache_step_runs_after_a_failure_too() -> None:
    for step in steps():
        uses = step.get("uses", "")
        if "save" in uses or "upload" in uses:
            assert step["if"] == "always()"


def test_the_summary_is_appended_and_says_what_was_kept(project: Project) -> None:
    project.write("summary.md", "before\n")
    project.propose(0.9, 1.5, "undefined_name")
    project.run("--iterations=3", "--autoresearch-summary=summary.md")
    text = (project.path / "summary.md").read_text()
    assert text.startswith("before\n## autoresearch: main")
    assert "confirmed gain **+0.1" in text
    assert "| mutation-0001 | +0.1" in text
    assert re.search(r"`█▁·`", text)


@given(st.text(max_size=200))
def test_a_title_stays_in_its_cell(text: str) -> None:
    shown = cell(text)
    assert "\n" not in shown
    assert not re.search(r"(?<!\\)(?:\\\\)*\|", shown)
    assert "<" not in shown


@given(st.lists(st.none() | st.floats(0.5, 5), max_size=150))
def test_the_picture_has_one_block_a_attempt_and_the_best_is_tallest(scores) -> None:
    attempts = [
        Attempt(n, "s", "mutation", n, 1, "w", "done", 0.0, score=score)
        for n, score in enumerate(scores)
    ]
    shown = sparkline(attempts, Metric())
    assert len(shown) == min(100, len(attempts))
    known = [score for score in scores[-100:] if score is not None]
    if known and min(known) < max(known):
        best = scores[-100:].index(min(known))
        assert shown[best] == "█"
