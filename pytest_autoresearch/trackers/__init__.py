"""Adapters to experiment trackers: plugins of ten lines, none of them loaded unless asked for.

``pytest -p pytest_autoresearch.trackers.mlflow …``; each needs the extra of its name.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..core.records import Attempt


def figures(record: Attempt) -> dict[str, float]:
    """Return an attempt's numbers by name; absent ones are left out."""
    last = record.own_runs[-1:]
    values = {
        "score": record.score,
        "bar": record.bar,
        "gain": record.gain,
        "gain_sigma": record.gain_sigma,
        "replicates": record.n,
        "dollars": record.usage.cost_usd,
        **{name: float(getattr(run, name)) for run in last for name in _RUN},
    }
    return {name: float(value) for name, value in values.items() if value is not None}


_RUN = ("train_seconds", "total_seconds", "steps", "parameters", "peak_memory_bytes")


def words(record: Attempt) -> dict[str, str]:
    """Return an attempt's texts by name; absent ones are left out."""
    values = {
        "verdict": record.verdict or record.state,
        "title": record.title,
        "hypothesis": record.hypothesis,
        "proposer": record.proposer,
        "model": record.usage.model,
        "reason": record.reason,
        "commit": record.commit,
    }
    return {name: value[:500] for name, value in values.items() if value}


def campaign(artifacts: Mapping[str, Path]) -> str:
    """Return the name of the campaign."""
    return artifacts["ledger"].parent.name


def home(artifacts: Mapping[str, Path], name: str) -> Path:
    """Return where a tracker of that name keeps its files, beside the campaigns."""
    folder = artifacts["ledger"].parent.parent / name
    folder.mkdir(exist_ok=True)
    return folder
