"""The project of a campaign: its declaration, and whether files, git, data and disk are ready."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..core.errors import UsageError
from ..core.experiment import Experiment
from ..ledger.git import Repository, RepositoryError
from ..ledger.store import Ledger

MIN_FREE_BYTES = 64 * 2**20

DEFAULT_DATA = Path(".autoresearch/data/stdlib")


def experiment_at(root: Path) -> Experiment:
    """Return the declaration of ``root/conftest.py`` without running pytest.

    Raises:
        UsageError: As `declared_in`.
    """
    path = root / "conftest.py"
    spec = importlib.util.spec_from_file_location("conftest", path)
    if not path.is_file() or spec is None or spec.loader is None:
        return Experiment(data=DEFAULT_DATA)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return declared_in(module, str(path)) or Experiment(data=DEFAULT_DATA)


def declared_in(module: object, path: str) -> Experiment | None:
    """Call a conftest module's ``experiment`` fixture; None if it has none.

    Raises:
        UsageError: The fixture takes arguments, fails, or returns something else.
    """
    function = _fixture_function(getattr(module, "experiment", None))
    if function is None:
        return None
    try:
        experiment = function()
    except Exception as error:
        raise UsageError(
            f"{path}: the experiment fixture failed: {type(error).__name__}: {error}"
        ) from error
    if not isinstance(experiment, Experiment):
        raise UsageError(
            f"{path}: the experiment fixture returned {type(experiment).__name__}; "
            "return a pytest_autoresearch.Experiment"
        )
    return experiment


def _fixture_function(fixture: Any) -> Any:
    """Unwrap a fixture definition: an object since pytest 8.4, a wrapped function before."""
    if unwrap := getattr(fixture, "_get_wrapped_function", None):
        return unwrap()
    return getattr(getattr(fixture, "__pytest_wrapped__", None), "obj", None)


def check(root: Path, experiment: Experiment) -> Repository:
    """Check files, git, disk and data; return the opened repository.

    Raises:
        UsageError: With the remedy.
    """
    if not (root / experiment.program).is_file():
        raise UsageError(
            f"{experiment.program} is missing in {root}; write the researcher's brief there "
            "(see docs/contract.md), or run pytest from the folder that holds it"
        )
    for name in experiment.files:
        if not (root / name).is_file():
            raise UsageError(f"{name} is missing in {root}; the experiment declares it")
    try:
        repository = Repository.open(root)
        repository.check_files(experiment.files)
    except RepositoryError as error:
        raise UsageError(str(error)) from None
    _check_writable(root)
    if experiment.run is None:
        _check_data(root, experiment)
    return repository


def _check_data(root: Path, experiment: Experiment) -> None:
    from ..data.dataset import Dataset, DatasetError  # needs numpy

    if experiment.data is None:
        raise UsageError("the experiment declares no data; set Experiment(data=…)")
    try:
        Dataset.open(root / experiment.data).verify()
    except DatasetError as error:
        raise UsageError(str(error)) from None


def check_data_identity(
    root: Path, experiment: Experiment, ledger: Ledger, tag: str, *, record: bool = False
) -> None:
    """Check that the data set is the one that the campaign was scored on.

    With `record`, store the hash of the data if the campaign has none yet.

    Raises:
        UsageError: The data changed.
    """
    if experiment.data is None or experiment.run is not None:
        return
    from ..data.dataset import Dataset

    identity, recorded = Dataset.open(root / experiment.data).sha256, ledger.meta("data_sha256")
    if recorded is None and record:
        ledger.set_meta("data_sha256", identity)
    elif recorded not in (None, identity):
        raise UsageError(
            f"{experiment.data} is other data than campaign {tag!r} was scored on; prepare the old "
            "data again, or choose another tag"
        )


def _check_writable(root: Path) -> None:
    folder = root / ".autoresearch"
    try:
        folder.mkdir(exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        raise UsageError(
            f"{folder} cannot be written ({error.strerror}); the ledger lives there: "
            "make it writable or run from another folder"
        ) from None
    free = shutil.disk_usage(folder).free
    if free < MIN_FREE_BYTES:
        raise UsageError(
            f"the disk of {folder} has {free / 2**20:.0f} MB free; "
            f"{MIN_FREE_BYTES // 2**20} MB are needed: make room"
        )


def default_tag(repository: Repository) -> str:
    """Return the name of the current branch as a tag, so that a second session resumes it."""
    name = (repository.branch() or "detached").removeprefix("autoresearch/")
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "main"
