"""The four fixtures of an attempt; a user's ``conftest.py`` may override any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from ..core.experiment import Experiment
from ..core.outcome import Score, Trial

if TYPE_CHECKING:
    from ..campaign.attempt import WorkingAttempt


@pytest.fixture(scope="session")
def experiment(request: pytest.FixtureRequest) -> Experiment:
    """What is researched; override it in ``conftest.py`` to declare your own."""
    from .session import SESSION

    return request.config.stash[SESSION].experiment


@pytest.fixture
def proposal(request: pytest.FixtureRequest, experiment: Experiment) -> WorkingAttempt:
    """The attempt with its mutation: proposed now, or given back by an interrupted attempt."""
    from .session import SESSION

    return request.config.stash[SESSION].propose(request.node, experiment)


@pytest.fixture
def trial(request: pytest.FixtureRequest, proposal: WorkingAttempt) -> Trial:
    """The trained and scored mutation; never raises for what the candidate did."""
    from .session import SESSION

    return request.config.stash[SESSION].train(request.node, proposal)


@pytest.fixture
def best(request: pytest.FixtureRequest, trial: Trial) -> Score:
    """The bar to pass, by the verdict rule, against the champion as it stands now."""
    from .session import SESSION

    return request.config.stash[SESSION].bar(request.node)
