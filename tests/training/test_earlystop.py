"""Early stopping: exploding losses and hanging processes, by wide margins."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.training.earlystop import (
    EXPLODED_RATIO,
    SILENCE_S,
    SILENCE_SHARE,
    Silence,
    exploded,
)

LENGTH = 200


def curve(until: float = 1.0, times: float = 1.0) -> list[tuple[float, float]]:
    """A falling loss, in another unit if `times` differs from 1."""
    return [
        (i / LENGTH, times * (2 + 4 * math.exp(-5 * i / LENGTH)))
        for i in range(int(until * LENGTH))
    ]


def rising(until: float, times: float = 1.0) -> list[tuple[float, float]]:
    """A loss that jumps to 1.1 times the bound after the first step."""
    start = curve(until, times)[0][1]
    return [(0.0, start), *((at, 1.1 * EXPLODED_RATIO * start) for at, _ in curve(until)[1:])]


def test_single_bad_moment_does_not_stop_a_run() -> None:
    bumpy = curve(until=0.8)
    bumpy[-6:] = [(at, loss + 10.0) for at, loss in bumpy[-6:]]
    assert exploded(bumpy) == ""


@given(st.floats(0.25, 0.9), st.floats(1e-3, 1e3))
def test_loss_far_above_its_first_value_has_exploded_in_any_unit(
    until: float, times: float
) -> None:
    assert exploded(curve(until, times)) == ""
    worse = rising(until, times)
    assert "before training" in exploded(worse)
    assert exploded([(at, loss) for at, loss in worse if at < 0.1]) == ""


def test_nearly_finished_runs_are_not_stopped() -> None:
    assert exploded(rising(0.9))
    assert exploded(rising(0.95)) == ""


def test_runs_of_few_steps_are_not_judged() -> None:
    assert exploded(rising(0.8))
    assert exploded(rising(0.8)[:: LENGTH // 40]) == ""


def test_loss_that_starts_at_or_below_zero_cannot_explode() -> None:
    odd = [(at, -1.0 + 50 * at) for at, _ in curve(until=0.8)]
    assert exploded(odd) == ""
    assert exploded(()) == ""


def test_idle_process_without_a_message_hangs() -> None:
    silence = Silence(100.0, lambda: 7.0)
    reasons = [silence.reason(100.0 + second) for second in range(200)]
    first = next(filter(None, reasons))
    assert reasons.index(first) == 2 * int(SILENCE_S + 1)
    assert "no batch requested for 122 seconds" in first


@given(st.floats(2 * SILENCE_SHARE, 1.0), st.integers(1, 60))
def test_slow_process_that_computes_does_not_hang(share: float, minutes: int) -> None:
    now = 0.0
    silence = Silence(0.0, lambda: now * share)
    for _ in range(6 * minutes):
        now += 10.0
        assert silence.reason(now) == ""


def test_process_that_hangs_after_working_is_detected() -> None:
    now = 0.0
    silence = Silence(0.0, lambda: min(now, 300.0))
    while not silence.reason(now):
        now += 1.0
    assert 300 + SILENCE_S <= now <= 300 + 3 * SILENCE_S


def test_cpu_time_is_not_read_while_messages_arrive() -> None:
    def fail() -> float:
        raise AssertionError("CPU time was read")

    silence = Silence(0.0, fail)
    assert not any(silence.reason(float(second)) for second in range(int(SILENCE_S)))
