from __future__ import annotations

from collections import Counter
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.scoring.sampling import Sample, draw, mixture, rounds, secret_generator

size = st.one_of(st.just(0.0), st.floats(1e-3, 100))
populations = st.lists(
    st.tuples(size, st.floats(-100, 100)), min_size=1, max_size=3
)  # (size, value) of each member


class Scripted:
    """A source of randomness with fixed results."""

    def __init__(self, uniform: tuple[int, ...], ticks: list[float] | tuple[int, ...]) -> None:
        self.integers_left = [list(uniform), list(ticks)]
        self.ticks = ticks

    def integers(self, n: int, size: int) -> np.ndarray[Any, Any]:
        return np.array(self.integers_left.pop(0))

    def random(self, size: int) -> np.ndarray[Any, Any]:
        return np.array(self.ticks)


def every_outcome(sizes: np.ndarray[Any, Any], half: int) -> list[tuple[float, Sample]]:
    """List all samples of `half` uniform and `half` sized draws with their probabilities."""
    n, total = len(sizes), sizes.sum()
    edges = np.concatenate([[0.0], np.cumsum(sizes)])
    outcomes = []
    for uniform in product(range(n), repeat=half):
        for sized in product(range(n), repeat=half):
            if total > 0:
                chance = float(np.prod(sizes[list(sized)] / total))
                ticks: Any = [(edges[i] + edges[i + 1]) / 2 / total for i in sized]
            else:
                chance, ticks = n**-half, sized
            if chance > 0:
                sample = draw(sizes, 2 * half, Scripted(uniform, ticks))  # type: ignore[arg-type]
                assert tuple(sample.members) == (*uniform, *sized)
                outcomes.append((chance * n**-half, sample))
    return outcomes


@given(populations, st.sampled_from([1, 2]))
def test_estimate_is_exactly_unbiased(population: list[tuple[float, float]], half: int) -> None:
    sizes, values = (np.array(column) for column in zip(*population, strict=True))
    outcomes = every_outcome(sizes, half)
    expected = sum(chance * s.mean(values[s.members])[0] for chance, s in outcomes)
    assert sum(chance for chance, _ in outcomes) == pytest.approx(1)
    assert expected == pytest.approx(values.mean(), abs=1e-9)


@given(populations)
def test_standard_error_is_not_too_small(population: list[tuple[float, float]]) -> None:
    sizes, values = (np.array(column) for column in zip(*population, strict=True))
    outcomes = every_outcome(sizes, 2)
    results = [(chance, *s.mean(values[s.members])) for chance, s in outcomes]
    variance = sum(chance * (mean - values.mean()) ** 2 for chance, mean, _ in results)
    stated = sum(chance * se**2 for chance, _, se in results)
    assert stated >= variance - 1e-9


@given(st.lists(size, min_size=1, max_size=50), st.integers(1, 30))
def test_no_weight_exceeds_two_and_only_members_are_drawn(sizes: list[float], half: int) -> None:
    sample = draw(np.array(sizes), 2 * half, secret_generator())
    assert len(sample.members) == len(sample.weights) == 2 * half
    assert ((sample.members >= 0) & (sample.members < len(sizes))).all()
    assert sample.weights.max() <= 2 + 1e-9
    assert mixture(np.array(sizes)).sum() == pytest.approx(1)


def test_draws_follow_the_mixture() -> None:
    sizes = np.array([0.0, 1.0, 3.0, 0.0])
    sample = draw(sizes, 40_000, np.random.default_rng(1))
    share = np.bincount(sample.members, minlength=4) / 40_000
    assert share == pytest.approx(mixture(sizes), abs=0.01)


def test_single_forgery_attracts_half_of_the_draws() -> None:
    sizes = np.zeros(100_000)
    sizes[777] = 9.0
    sample = draw(sizes, 512, secret_generator())
    assert Counter(sample.members.tolist())[777] >= 256


def test_two_generators_never_agree() -> None:
    sizes = np.ones(10**6)
    one, other = (draw(sizes, 64, secret_generator()).members for _ in range(2))
    assert (one != other).any()


@pytest.mark.parametrize("m", [0, 1, 3, -2])
def test_only_an_even_number_of_positions_is_drawn(m: int) -> None:
    with pytest.raises(ValueError, match="even number"):
        draw(np.ones(3), m, secret_generator())


@pytest.mark.parametrize("bad", [np.nan, np.inf, -1.0])
def test_invalid_sizes_are_refused(bad: float) -> None:
    with pytest.raises(ValueError, match="sizes"):
        draw(np.array([1.0, bad]), 2, secret_generator())


def reveals(target: int, other: int, seq_len: int) -> bool:
    """Check whether auditing `other` reveals the token `target`."""
    row_start = (other - 1) // seq_len * seq_len
    return row_start <= target <= other - 1


targets = st.integers(1, 6).flatmap(
    lambda t: st.tuples(st.just(t), st.lists(st.integers(1, 8 * t), min_size=1, max_size=40))
)


@given(targets)
def test_no_answer_is_revealed_before_its_round(case: tuple[int, list[int]]) -> None:
    seq_len, chosen = case
    round_of = rounds(np.array(chosen), seq_len)
    for a, round_a in zip(chosen, round_of, strict=True):
        for b, round_b in zip(chosen, round_of, strict=True):
            if reveals(a, b, seq_len):
                assert round_a < round_b


@given(targets)
def test_number_of_rounds_is_minimal(case: tuple[int, list[int]]) -> None:
    seq_len, chosen = case
    round_of = rounds(np.array(chosen), seq_len)
    for b, round_b in zip(chosen, round_of, strict=True):
        before = [r for a, r in zip(chosen, round_of, strict=True) if reveals(a, b, seq_len)]
        assert round_b == max(before, default=-1) + 1
