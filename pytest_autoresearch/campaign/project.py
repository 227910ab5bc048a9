"""TODO campaign.project."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from ..core.experiment import Experiment

if TYPE_CHECKING:
    from ..ledger.git import Repository

MIN_FREE_BYTES = 64 * 2**20

DEFAULT_DATA = Path(".autoresearch/data/stdlib")


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
            "return a pytest_autoresearch.core.experiment.Experiment"
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
    from ..ledger.git import Repository, RepositoryError

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


def _check_data(root: Path, experiment: Experiment) -> None:
    from ..data.dataset import Dataset, DatasetError

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
