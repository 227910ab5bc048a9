"""Columns in pytest-html's report."""

from __future__ import annotations

import html
import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project

from pytest_autoresearch.report import columns


@given(st.text())
def test_title_is_escaped_in_its_cell(title: str) -> None:
    *_, cell = columns.row({"verdict": "crash", "title": title})
    inside = cell.removeprefix('<td class="col-title">').removesuffix("</td>")
    assert not {"<", ">", '"'} & set(inside)
    assert html.unescape(inside) == html.unescape(html.escape(title))


def test_row_without_a_verdict_has_empty_cells() -> None:
    assert len(columns.row({})) == len(columns.header())
    assert all(cell.endswith("></td>") for cell in columns.row({}))


@pytest.mark.parametrize("workers", [(), pytest.param(("-n2",), marks=pytest.mark.slow)])
def test_pytest_html_shows_verdict_score_and_title(project: Project, workers) -> None:
    pytest.importorskip("pytest_html", reason="pytest-html is not installed")
    project.propose("0.5", "undefined_name")
    result = project.run("--iterations=2", "--autoresearch-confirm=0", "--html=all.html", *workers)
    assert result.ret == 0
    page = (project.path / "all.html").read_text()
    [blob] = re.findall(r'data-jsonblob="([^"]*)"', page)
    tests = json.loads(html.unescape(blob))["tests"]
    rows = {}
    for name, [test, *_] in tests.items():
        rows[name.split("::")[-1]] = [re.sub("<[^>]*>", "", c) for c in test["resultsTableRow"]]
    assert rows["mutation-0001"][2:5] == ["keep", "0.500200", "+0.500000"]
    assert rows["mutation-0002"][2:7] == ["crash", "", "", "", "score undefined_name"]
    assert rows["baseline-1"][2:4] == ["baseline", "1.000100"]
    heads = re.findall(r'<th class="sortable[^>]*>(\w+)', page)
    assert heads[:7] == ["Result", "Test", "Verdict", "Score", "Gain", "Sigma", "Title"]
