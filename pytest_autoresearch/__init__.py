"""Autonomous research as a pytest plugin: every mutation is a test, every keep is a commit.

The public names are imported on first use, so that a plain pytest run does not pay for them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .core.experiment import Budget, Experiment, Guard, Metric
    from .core.proposal import Edit, Proposal

__all__ = ["Budget", "Edit", "Experiment", "Guard", "Metric", "Proposal", "__version__"]

__version__ = "0.1.0"

_MODULES = {
    "Budget": "experiment", "Experiment": "experiment", "Guard": "experiment",
    "Metric": "experiment", "Edit": "proposal", "Proposal": "proposal",
}  # fmt: skip


def __getattr__(name: str) -> object:
    """Import a public name from the module that defines it."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f".core.{_MODULES[name]}", __name__), name)


def __dir__() -> list[str]:
    """List the public names."""
    return __all__
