"""Noise of a campaign from its records."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from pytest_autoresearch import Metric
from pytest_autoresearch.core.records import Attempt, Champion
from pytest_autoresearch.core.run import Purpose, Run
from pytest_autoresearch.judge.noise import UNMEASURED, noise_of
from pytest_autoresearch.judge.verdicts import Noise, Prior


def estimate(first: list[float], again: list[float], metric: str = "val_bpb", **run) -> Noise:
    """Return the noise after a calibration with two random streams a seed."""
    common = Run("ok", device="cpu", **run)
    attempts = [
        Attempt(
            10 * stream + seed, f"baseline-{seed}", "baseline", seed, 1, "main", "done", 0.0,
            runs=(replace(common, score=score, seed=seed, stream=stream, purpose=purpose),),
        )
        for stream, (scores, purpose) in enumerate(
            ((first, Purpose.CALIBRATE), (again, Purpose.REPEAT))
        )
        for seed, score in enumerate(scores)
    ]  # fmt: skip
    champion = Champion(1, attempts[0].id, "base", dict(enumerate(first)), 0.0)
    return noise_of(attempts, [champion], Metric(metric))


def test_repeats_outweigh_the_shipped_prior() -> None:
    noise = estimate([1.0, 1.21, 1.43], [1.1, 1.11, 1.53])
    prior = Prior()
    expected = math.sqrt((3 * 0.01 + prior.freedom * prior.sigma**2) / (3 + prior.freedom))
    assert (noise.sigma, noise.freedom) == (pytest.approx(expected), 3 + prior.freedom)


def test_the_shipped_prior_applies_to_trusted_val_bpb_only() -> None:
    for noise in (
        estimate([1.0, 1.21, 1.43], [1.1, 1.11, 1.53], "seconds"),
        estimate([1.0, 1.21, 1.43], [1.1, 1.11, 1.53], score_kind="self-reported"),
    ):
        assert (noise.sigma, noise.freedom) == (pytest.approx(0.1), 4)


def test_without_repeats_the_shipped_prior_counts_more() -> None:
    noise = estimate([1.0, 1.2, 1.4], [])
    assert (noise.sigma, noise.freedom) == (Prior().sigma, UNMEASURED)


def test_a_stream_without_effect_leaves_the_scatter_of_the_seeds() -> None:
    noise = estimate([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], "seconds")
    assert (noise.sigma, noise.freedom) == (pytest.approx(math.sqrt(2)), 2)
    assert not noise.deterministic


def test_equal_scores_of_all_runs_are_deterministic() -> None:
    noise = estimate([7.0, 7.0, 7.0], [7.0, 7.0, 7.0], "operations")
    assert noise.deterministic
    assert 0 < noise.sigma < 1e-6


def test_sigma_is_never_below_the_resolution() -> None:
    noise = estimate([0.8, 0.805, 0.8], [0.8, 0.805, 0.805], "accuracy")
    assert noise.sigma == pytest.approx(0.005)


def test_a_repeat_of_a_later_champion_counts() -> None:
    first = estimate([1.0, 1.2], [1.1, 1.1], "seconds")
    attempts = [
        Attempt(
            9, "mutation-0001", "mutation", 1, 1, "main", "done", 0.0,
            runs=(Run("ok", score=0.9, seed=1, stream=20, repeats=0.5, purpose=Purpose.REPEAT),),
        )
    ]  # fmt: skip
    assert noise_of(attempts, [], Metric("seconds")).freedom == 2
    assert noise_of(attempts, [], Metric("seconds")).sigma == pytest.approx(0.4)
    assert first.freedom == 3
