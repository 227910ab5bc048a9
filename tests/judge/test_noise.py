"""The prior of the noise."""

from __future__ import annotations

import math

import pytest

from pytest_autoresearch import Metric
from pytest_autoresearch.core.records import Champion
from pytest_autoresearch.judge.noise import noise_of
from pytest_autoresearch.judge.verdicts import Prior


def baseline(*scores: float) -> list[Champion]:
    return [Champion(1, 1, "base", dict(enumerate(scores)), 0.0)]


@pytest.mark.parametrize("scores", [(1.0, 3.0), (1.0, 2.0, 3.0), (1.0, 1.5, 2.0, 2.5, 3.0)])
def test_a_prior_from_the_calibration_has_its_degrees_of_freedom(
    scores: tuple[float, ...],
) -> None:
    noise = noise_of([], baseline(*scores), Metric("seconds"))
    mean = sum(scores) / len(scores)
    spread = math.sqrt(sum((s - mean) ** 2 for s in scores) / (len(scores) - 1))
    assert noise.sigma == pytest.approx(math.sqrt(2) * spread)
    assert noise.freedom == len(scores) - 1


def test_the_shipped_prior_applies_to_val_bpb_only() -> None:
    noise = noise_of([], baseline(1.0, 2.0, 3.0), Metric("val_bpb"))
    assert (noise.sigma, noise.freedom) == pytest.approx((Prior().sigma, Prior().freedom))
