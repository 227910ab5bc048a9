from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.scoring.evaluator import bits_per_byte

nats = st.floats(0, 1e12)
sizes = st.integers(1, 10**12)


def test_uniform_guess_of_bytes_costs_eight_bits_per_byte() -> None:
    assert bits_per_byte(1000 * math.log(256), 1000) == pytest.approx(8, abs=1e-12)


@given(nats, sizes, st.integers(1, 1000))
def test_repeated_text_has_the_same_bits_per_byte(loss: float, size: int, k: int) -> None:
    assert bits_per_byte(k * loss, k * size) == pytest.approx(bits_per_byte(loss, size))


@given(nats, sizes)
def test_bits_per_byte_converts_back_to_nats(loss: float, size: int) -> None:
    assert bits_per_byte(loss, size) * size * math.log(2) == pytest.approx(loss)


@pytest.mark.parametrize("loss", [math.nan, math.inf, -math.inf, -1e-9])
def test_negative_and_non_finite_losses_are_refused(loss: float) -> None:
    with pytest.raises(ValueError, match="not a cross entropy"):
        bits_per_byte(loss, 1)


@pytest.mark.parametrize("size", [0, -1])
def test_text_without_bytes_is_refused(size: int) -> None:
    with pytest.raises(ValueError, match="at least one token with bytes"):
        bits_per_byte(1.0, size)
