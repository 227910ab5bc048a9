"""Everything that is checked before anything is spent; each failure one line with its remedy."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .experiment import Experiment
from .options import expanded

if TYPE_CHECKING:
    from .options import Config
    from .repository import Repository

MIN_FREE_BYTES = 64 * 2**20
DEFAULT_DATA = Path(".autoresearch/data/stdlib")


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
            declared = _declared(plugin, path)
            if declared is not None:
                return declared
    return Experiment(data=DEFAULT_DATA)


def experiment_at(root: Path) -> Experiment:
    """Return what ``root/conftest.py`` declares, outside of a pytest run.

    Raises:
        pytest.UsageError: As `find_experiment`.
    """
    import importlib.util

    path = root / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest", path)
    if not path.is_file() or spec is None or spec.loader is None:
        return Experiment(data=DEFAULT_DATA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return _declared(module, str(path)) or Experiment(data=DEFAULT_DATA)


def _declared(module: object, path: str) -> Experiment | None:
    function = _fixture_function(getattr(module, "experiment", None))
    if function is None:
        return None
    try:
        experiment = function()
    except Exception as error:
        raise pytest.UsageError(
            f"{path}: the experiment fixture failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(experiment, Experiment):
        raise pytest.UsageError(
            f"{path}: the experiment fixture returned {type(experiment).__name__}; "
            "return a pytest_autoresearch.experiment.Experiment"
        )
    return experiment


def _fixture_function(declared: Any) -> Any:
    """Unwrap a fixture definition: an object since pytest 8.4, a wrapped function before."""
    if unwrap := getattr(declared, "_get_wrapped_function", None):
        return unwrap()
    wrapped = getattr(declared, "__pytest_wrapped__", None)
    return getattr(wrapped, "obj", None)


def check(root: Path, experiment: Experiment) -> Repository:
    """Check files, git and data; return the opened repository.

    Raises:
        pytest.UsageError: With the remedy.
    """
    from .repository import Repository, RepositoryError

    if not (root / experiment.program).is_file():
        raise pytest.UsageError(
            f"{experiment.program} is missing in {root}; write the researcher's brief there "
            "(see docs/contract.md), or run pytest from the folder that holds it"
        )
    for name in experiment.files:
        if not (root / name).is_file():
            raise pytest.UsageError(f"{name} is missing in {root}; the experiment declares it")
    try:
        repository = Repository.open(root)
        dirty = repository.dirty(experiment.files)
    except RepositoryError as error:
        raise pytest.UsageError(str(error)) from None
    if dirty:
        names = ", ".join(dirty)
        raise pytest.UsageError(
            f"{names} has uncommitted changes, and they are yours: commit them "
            f"(git commit {' '.join(dirty)}) to research them, or git stash to leave them out"
        )
    _check_writable(root)
    if experiment.run is None:
        _check_data(root, experiment)
    return repository


def junit_log(config: pytest.Config) -> Path | None:
    """Return where ``--junitxml`` points, read as pytest reads it; None without it."""
    given = getattr(config.option, "xmlpath", None)  # absent with -p no:junitxml
    return Path(os.path.abspath(expanded(given))) if given else None


def check_outputs(config: pytest.Config, options: Config) -> None:
    """See that what was asked to be written can be, so that a night does not end in nothing.

    Raises:
        pytest.UsageError: With the remedy.
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


def _check_data(root: Path, experiment: Experiment) -> None:
    from .scoring.dataset import Dataset, DatasetError

    if experiment.data is None:
        raise pytest.UsageError("the experiment declares no data; set Experiment(data=…)")
    try:
        dataset = Dataset.open(root / experiment.data)
        dataset.verify()
    except DatasetError as error:
        raise pytest.UsageError(str(error)) from None


def _check_writable(root: Path) -> None:
    folder = root / ".autoresearch"
    try:
        folder.mkdir(exist_ok=True)
        probe = folder / f".probe-{os.getpid()}"
        probe.write_bytes(b"x")
        probe.unlink()
    except OSError as error:
        raise pytest.UsageError(
            f"{folder} cannot be written ({error.strerror}); the ledger lives there: "
            "make it writable or run from another folder"
        ) from None
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise pytest.UsageError(
            f"the disk of {folder} has {free / 2**20:.0f} MB free; "
            f"{MIN_FREE_BYTES // 2**20} MB are needed: make room"
        )


def default_tag(repository: Repository) -> str:
    """Return the current branch's name as a tag, so that a second run resumes the first."""
    name = repository.branch() or "detached"
    name = name.removeprefix("autoresearch/")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "main"
