"""Without a key, a session takes the proposer that the experiment names."""

from __future__ import annotations

import pytest
from support.project import CONFTEST, Project

from pytest_autoresearch.proposers.registry import CREDENTIALS


@pytest.fixture
def project(project: Project, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in CREDENTIALS:
        monkeypatch.delenv(name, raising=False)
    declared = CONFTEST.format(name="val_bpb", direction="min")
    assert "context=()," in declared
    project.write(
        "conftest.py",
        declared.replace("context=(),", "context=(), proposer='replay:ideas,ratchet',"),
    )
    project.propose(0.9)
    project.commit("recorded ideas")
    return project


def session(project: Project, *args: str) -> str:
    result = project.pytester.runpytest_subprocess(
        "--autoresearch", "--autoresearch-confirm=0", "--iterations=2",
        "-p", "no:cacheprovider", "-p", "no:hypothesispytest", *args, timeout=120,
    )  # fmt: skip
    assert result.ret == 0, result.outlines
    return result.stdout.str()


def test_recorded_proposals_come_first_then_the_search(project: Project) -> None:
    shown = session(project)
    assert (
        "proposer: replay:ideas,ratchet (named by the experiment, since no key of a language model "
        "is set); judge:"
    ) in shown
    mutations = [a for a in project.ledger().attempts() if a.kind == "mutation"]
    assert [attempt.proposer for attempt in mutations] == ["replay", "ratchet"]
    assert mutations[0].verdict == "keep"


def test_the_option_replaces_what_the_experiment_names(project: Project) -> None:
    shown = session(project, "--autoresearch-proposer=ratchet")
    assert "proposer: ratchet; judge:" in shown
    assert {a.proposer for a in project.ledger().attempts() if a.kind == "mutation"} == {"ratchet"}


def test_a_bad_name_in_the_experiment_is_refused(project: Project) -> None:
    text = (project.path / "conftest.py").read_text()
    project.write("conftest.py", text.replace("replay:ideas", "replay:nowhere"))
    result = project.pytester.runpytest_subprocess("--autoresearch", "-p", "no:cacheprovider")
    assert result.ret == 4
    result.stderr.fnmatch_lines(["ERROR: *replay:*nowhere is not a folder*"])
