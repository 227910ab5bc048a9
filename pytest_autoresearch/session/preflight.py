"""Checks of the experiment and of output paths before anything is spent."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..campaign.open import CampaignResources
from ..campaign.project import DEFAULT_DATA, declared_in
from ..core.errors import UsageError
from ..core.experiment import Experiment
from ..core.proposal import ProposerUnavailable
from ..core.text import one_line
from ..options import expanded
from ..sandbox.launch import survey
from ..sandbox.policy import SandboxError
from . import testreports

if TYPE_CHECKING:
    from ..options import Options


@contextmanager
def usage_errors() -> Iterator[None]:
    """Turn a `UsageError` into pytest's, which prints its message without a traceback."""
    try:
        yield
    except UsageError as error:
        raise pytest.UsageError(str(error)) from None


PROPOSER = ("name", "propose", "close")
"""Members that every proposer must have; see `core.proposal.Proposer`."""


def find_experiment(config: pytest.Config) -> Experiment:
    """Return what the user's ``experiment`` fixture declares, or the default declaration.

    The declaration is needed before the first item is set up, so the fixture function is called
    directly; it must take no arguments.

    Raises:
        pytest.UsageError: If it takes arguments, fails, or returns something else.
    """
    for plugin in config.pluginmanager.get_plugins():
        path = getattr(plugin, "__file__", None)
        if path and Path(path).name == "conftest.py":
            with usage_errors():
                declared = declared_in(plugin, path)
            if declared is not None:
                return declared
    return Experiment(data=DEFAULT_DATA)


def check_installed(experiment: Experiment) -> None:
    """Check that the packages of the training contract are installed.

    Raises:
        pytest.UsageError: One is missing; names the extra that installs it.
    """
    needed = () if experiment.run is not None else ("torch", "safetensors", "tiktoken")
    if missing := [name for name in needed if find_spec(name) is None]:
        raise pytest.UsageError(
            f"the training contract needs {', '.join(missing)}: "
            "pip install 'pytest-autoresearch[gpt]', or declare a command with Experiment(run=…)"
        )


def check_sandbox(options: Options) -> None:
    """Check that this machine can confine what the options require.

    Raises:
        pytest.UsageError: It cannot; names what is not confined.
    """
    if options.sandbox == "require":
        try:
            survey("require")
        except SandboxError as error:
            raise pytest.UsageError(f"--autoresearch-sandbox=require: {error}") from None


def junit_log(config: pytest.Config) -> Path | None:
    """Return the path of ``--junitxml``, expanded as pytest does, or None."""
    given = getattr(config.option, "xmlpath", None)  # absent with -p no:junitxml
    return Path(os.path.abspath(expanded(given))) if given else None


def replace_junit_writer(config: pytest.Config) -> None:
    """Unregister pytest's own writer, whose file would lack the attempts of earlier sessions.

    It writes in its ``pytest_sessionfinish``, before champions are confirmed, and on a full disk
    would leave nothing.
    """
    if junit_log(config) is None:
        return
    from _pytest.junitxml import xml_key  # absent with -p no:junitxml

    writer = config.stash[xml_key]
    del config.stash[xml_key]
    config.pluginmanager.unregister(writer)


def check_outputs(config: pytest.Config, options: Options) -> None:
    """Check that every requested output file can be written.

    Raises:
        pytest.UsageError: One cannot; names the option and the path.
    """
    root, junit = config.rootpath, junit_log(config)
    if junit is not None:
        _check_output("--junitxml", junit)
    if options.html:
        _check_output("--autoresearch-html", root / options.html)
    if options.summary:
        _check_output("--autoresearch-summary", root / options.summary)


def _check_output(option: str, path: Path) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.exists():
            path.open("ab").close()
        else:
            tempfile.TemporaryFile(dir=path.parent).close()
    except OSError as error:
        raise pytest.UsageError(
            f"{option}: {path} cannot be written ({error.strerror}); choose another place"
        ) from None


def prepare_proposer(
    resources: CampaignResources, name: str, first: int, attempts: int
) -> list[str]:
    """Check the proposer before the baseline is measured; return lines on model and cost.

    Args:
        resources: Resources of the campaign.
        name: Name of the proposer.
        first: Number of the first attempt.
        attempts: Attempts of this session.

    Raises:
        pytest.UsageError: The proposer cannot propose.
    """
    try:
        researcher = resources.researcher
        lines = researcher.prepare(first, attempts, first - 1)
        missing = [member for member in PROPOSER if not hasattr(researcher.main, member)]
        if missing:
            raise ValueError(f"it lacks {' and '.join(missing)}; see docs/proposers.md")
    except Exception as error:  # a user's factory may raise anything
        expected = isinstance(error, ProposerUnavailable | ValueError)
        reason = one_line(error, 1000) if expected else testreports.words(error)
        raise pytest.UsageError(f"--autoresearch-proposer={name}: {reason}") from None
    return lines
