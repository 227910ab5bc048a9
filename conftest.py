"""The shipped experiment: a small GPT on the source of the standard library."""

from pathlib import Path

import pytest

from pytest_autoresearch import Experiment

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def experiment():
    return Experiment(
        files=("train.py",),  # editable by mutations
        context=("prepare.py",),  # shown to proposers, not editable
        data=Path(".autoresearch/data/stdlib"),  # created by: python prepare.py
        proposer="replay:docs/sample/proposals,gp",  # without a key: recorded ideas first
    )
