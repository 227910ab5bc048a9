"""A research project in miniature: a real git repository, a real command, milliseconds a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from support.project import CONFTEST, TRAIN, Project, git
from support.wire.server import Wire

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """List the rehearsed attacks and by how much each moved the score."""
    reports = [*terminalreporter.getreports("passed"), *terminalreporter.getreports("failed")]
    rows = sorted(dict(report.user_properties)["attack"] for report in reports
                  if "attack" in dict(report.user_properties))  # fmt: skip
    if not rows:
        return
    terminalreporter.section("attacks: score moved by (bits per byte, positive is a gain)")
    for name, verdict, moved in rows:
        shown = "no score" if moved is None else f"{moved:+.6f}"
        terminalreporter.write_line(f"{name:40} {verdict:8} {shown}")
    best = max((moved for _, _, moved in rows if moved is not None), default=0.0)
    terminalreporter.write_line(f"{len(rows)} attacks; the best gained {max(best, 0.0):.6f}")


@pytest.fixture
def make_project(pytester: pytest.Pytester) -> Callable[..., Project]:
    """Build a project; its metric and direction can be chosen."""

    def make(name: str = "val_bpb", direction: str = "min", train: str = TRAIN) -> Project:
        project = Project(pytester)
        project.write("train.py", train.replace("METRIC", name))
        project.write("program.md", "# lower it\n")
        project.write("conftest.py", CONFTEST.format(name=name, direction=direction))
        project.write(".gitignore", ".autoresearch/\nideas/\n__pycache__/\n*.xml\nresults.tsv\n")
        git(project.path, "init", "-q", "-b", "main")
        project.commit()
        return project

    return make


@pytest.fixture
def project(make_project: Callable[..., Project]) -> Project:
    """The default one: lower val_bpb."""
    return make_project()


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Wire]]:
    """Start servers that answer as Anthropic's would, each by its script."""
    wires: list[Wire] = []

    def start(*script: dict) -> Wire:
        wires.append(Wire(list(script)))
        monkeypatch.setenv("ANTHROPIC_BASE_URL", wires[-1].url)
        monkeypatch.setenv("ANTHROPIC_API_KEY", "x")
        return wires[-1]

    yield start
    for one in wires:
        one.close()
