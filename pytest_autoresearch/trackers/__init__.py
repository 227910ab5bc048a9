"""Adapters to experiment trackers: ``pytest -p pytest_autoresearch.trackers.mlflow …``.

None of them is loaded unless asked for; each needs the extra of its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.figures import figures
from ..core.records import Attempt


def numbers(record: Attempt) -> dict[str, float]:
    """Return an attempt's numeric figures by name."""
    return {k: float(v) for k, v in figures(record).items() if not isinstance(v, str)}


def texts(record: Attempt) -> dict[str, str]:
    """Return an attempt's texts by name, at most 500 characters of each."""
    return {k: v[:500] for k, v in figures(record).items() if isinstance(v, str)}


def campaign(artifacts: Mapping[str, Path]) -> str:
    """Return the name of the campaign."""
    return artifacts["ledger"].parent.name


def home(artifacts: Mapping[str, Path], name: str) -> Path:
    """Return the folder of the tracker `name`, beside the campaigns."""
    folder = artifacts["ledger"].parent.parent / name
    folder.mkdir(exist_ok=True)
    return folder
