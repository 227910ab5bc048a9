from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.scoring.evaluator import bits_per_byte

nats = st.floats(0, 1e12)
sizes = st.integers(1, 10**12)


def test_guessing_bytes_uniformly_costs_eight_bits_each() -> None:
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8, abs=1e-12)


@given(nats, sizes, st.integers(1, 1000))
def test_the_same_text_twice_has_the_same_bits_per_byte(loss: float, size: int, k: int) -> None:
    assert bits_per_byte(k * loss, k * size) == pytest.approx(bits_per_byte(loss, size))


@given(nats, sizes)
def test_nats_can_be_had_back(loss: float, size: int) -> None:
    assert bits_per_byte(loss, size) * size * math.log(2) == pytest.approx(loss)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, -1e-9])
def test_what_is_no_cross_entropy_is_refused(loss: float) -> None:
    with pytest.raises(ValueError, match="not a cross entropy"):
        bits_per_byte(loss, 1)


@pytest.mark.parametrize("size", [0, -1])
def test_text_without_bytes_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one token with bytes"):
        bits_per_byte(1.0, size)
