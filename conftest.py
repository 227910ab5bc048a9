"""The shipped experiment: a small GPT on the standard library's source."""

from pathlib import Path

import pytest

from pytest_autoresearch import Experiment

pytest_plugins = ["pytester"]


@pytest.fixture(scope="session")
def experiment():
    return Experiment(
        files=("train.py",),  # what a mutation may change
        context=("prepare.py",),  # what a proposer may read besides
        data=Path(".autoresearch/data/stdlib"),  # made by: python prepare.py
    )
