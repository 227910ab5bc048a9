"""Fixtures of an attempt; a user's ``conftest.py`` may override any of them."""

from __future__ import annotations

import pytest

from ..campaign.attempt import WorkingAttempt
from ..core.experiment import Experiment
from ..core.outcome import Score, Trial
from .session import SESSION


@pytest.fixture(scope="session")
def experiment(request: pytest.FixtureRequest) -> Experiment:
    """Return the experiment; override it in ``conftest.py`` to declare your own."""
    return request.config.stash[SESSION].experiment


@pytest.fixture
def proposal(request: pytest.FixtureRequest, experiment: Experiment) -> WorkingAttempt:
    """Return the attempt with its mutation, newly proposed or requeued."""
    return request.config.stash[SESSION].attempts.propose(request.node)


@pytest.fixture
def trial(request: pytest.FixtureRequest, proposal: WorkingAttempt) -> Trial:
    """Train and score the mutation; never raise for the candidate's faults."""
    return request.config.stash[SESSION].attempts.train(request.node, proposal)


@pytest.fixture
def best(request: pytest.FixtureRequest, trial: Trial) -> Score:
    """Return the score to beat, by the verdict rule and the present champion."""
    return request.config.stash[SESSION].attempts.bar(request.node)
