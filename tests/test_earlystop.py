"""Runs are given up late, by a wide margin, and only where the same loss is meant."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.trial.earlystop import FROM, MARGIN, behind, hopeless

LENGTH = 200


def curve(offset: float = 0.0, until: float = 1.0, late: float = 0.0) -> list[tuple[float, float]]:
    """A falling loss; `offset` nats above the champion's, `late` more of it at the end."""
    return [
        (i / LENGTH, 2 + 4 * math.exp(-5 * i / LENGTH) + offset + late * (i / LENGTH))
        for i in range(int(until * LENGTH))
    ]


@given(st.floats(0.01, 1.0), st.floats(-1.0, 1.0))
def test_a_run_is_never_given_up_before_half_of_its_budget(until: float, offset: float) -> None:
    reason = hopeless(curve(offset, until), curve())
    if until <= FROM or offset <= MARGIN - 0.01:
        assert reason == ""
    if until > FROM + 0.1 and offset > MARGIN + 0.01:
        assert f"{offset:.2f} nats behind" in reason


def test_a_single_bad_moment_is_forgiven() -> None:
    bumpy = curve(until=0.8)
    bumpy[-6:] = [(at, loss + 1.0) for at, loss in bumpy[-6:]]
    assert hopeless(bumpy, curve()) == ""


def test_without_the_champions_curve_nothing_is_given_up() -> None:
    assert hopeless(curve(5.0), ()) == ""
    assert hopeless((), curve()) == ""
    assert behind(curve(), [(0.0, 1.0)], 0.9) is None


@given(st.floats(0, 0.5))
def test_more_loss_never_saves_a_run(extra: float) -> None:
    if hopeless(curve(MARGIN + 0.02, 0.9), curve()):
        assert hopeless(curve(MARGIN + 0.02 + extra, 0.9), curve())
