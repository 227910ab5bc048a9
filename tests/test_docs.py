"""What the documentation shows is run, and what it names exists."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from support.project import Project

from pytest_autoresearch.options import OPTIONS, options_table

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md")])


def test_the_example_of_an_own_proposer_runs(project: Project) -> None:
    text = (ROOT / "docs/proposers.md").read_text()
    [code] = re.findall(r"```python\n# mine\.py\n(.*?)```", text, re.DOTALL)
    project.write("mine.py", code)
    project.pytester.syspathinsert()
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-proposer=mine:Halver", "--iterations=2",
        "-p", "no:cacheprovider",
    )  # fmt: skip
    assert result.ret == 0
    titles = [s.title for s in project.ledger().attempts() if s.kind == "mutation"]
    assert titles == ["LR 0.25", "LR 0.25"]
    assert project.verdicts() == ["discard", "duplicate"]


def test_the_table_of_options_is_the_one_in_the_code() -> None:
    assert options_table() in (ROOT / "docs/options.md").read_text()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_and_files_that_a_page_names_exist(page: Path) -> None:
    text = page.read_text()
    known = {option.flag for option in OPTIONS} | {"--autoresearch"}
    named = set(re.findall(r"--(?:autoresearch|iterations)[a-z-]*", text))
    assert not named - known
    for name in re.findall(r"benchmarks/\w+\.py", text):
        assert (ROOT / name).is_file(), name
    for link in re.findall(r"\]\(([^)#:]+)\)", text):
        assert (page.parent / link).exists(), link
