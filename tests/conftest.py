"""A research project in miniature: a real git repository, a real command, milliseconds a trial."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest
from hypothesis import settings
from support.project import CONFTEST, TRAIN, Project, git
from support.wire.server import Wire

settings.register_profile("shared machine", deadline=None)
settings.load_profile("shared machine")


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
