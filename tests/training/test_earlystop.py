"""Runs are given up late, by wide margins, and only for what their own figures show."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.training.earlystop import (
    EXPLODED_TIMES,
    FROM,
    MARGIN,
    SILENCE_S,
    SILENCE_SHARE,
    UNTIL,
    WINDOW,
    Silence,
    behind,
    exploded,
    hopeless,
)

LENGTH = 200


def curve(
    offset: float = 0.0, until: float = 1.0, late: float = 0.0, times: float = 1.0
) -> list[tuple[float, float]]:
    """A falling loss; `offset` nats above the champion's, `late` more of it at the end."""
    losses = [2 + 4 * math.exp(-5 * i / LENGTH) for i in range(int(until * LENGTH))]
    return [
        (i / LENGTH, times * (loss + offset + late * (i / LENGTH))) for i, loss in enumerate(losses)
    ]


def _level(at: float) -> float:
    return 4 * math.exp(-5 * (at - WINDOW / 2))


SECOND_HALF = _level(FROM) - _level(1.0)
"""What the champion's curve falls from its middle to its end, about."""


@given(st.floats(0.01, 1.0), st.floats(-1.0, 1.0))
def test_a_run_is_given_up_neither_early_nor_when_it_is_nearly_done(
    until: float, offset: float
) -> None:
    reason = hopeless(curve(offset, until), curve())
    allowed = MARGIN + SECOND_HALF
    if until <= FROM or until > UNTIL + 0.01 or offset <= allowed - 0.02:
        assert reason == ""
    if FROM + 0.1 < until < UNTIL and offset > allowed + 0.02:
        assert f"{offset:.2f} nats behind" in reason


def test_a_single_bad_moment_is_forgiven() -> None:
    bumpy = curve(until=0.8)
    bumpy[-6:] = [(at, loss + 10.0) for at, loss in bumpy[-6:]]
    assert hopeless(bumpy, curve()) == ""
    assert exploded(bumpy) == ""


def test_without_the_champions_curve_nobody_is_behind() -> None:
    assert hopeless(curve(5.0, 0.8), ()) == ""
    assert hopeless((), curve()) == ""
    assert behind(curve(), [(0.0, 1.0)], 0.9) is None


@given(st.floats(0, 0.5))
def test_more_loss_never_saves_a_run(extra: float) -> None:
    least = MARGIN + SECOND_HALF + 0.02
    assert hopeless(curve(least, 0.85), curve())
    assert hopeless(curve(least + extra, 0.85), curve())


def test_a_larger_model_that_starts_slowly_is_not_given_up() -> None:
    slow = [(at, loss + 2.0 * max(0.0, 0.45 - at)) for at, loss in curve()]
    assert all(hopeless(slow[:n], curve()) == "" for n in range(1, len(slow) + 1))


def test_a_run_that_lowers_its_rates_later_than_the_champion_is_not_given_up() -> None:
    def falls_from(share: float, lowest: float) -> list[tuple[float, float]]:
        steps = (i / LENGTH for i in range(LENGTH))
        return [(at, 3.9 - (3.9 - lowest) * max(0.0, at - share) / (1 - share)) for at in steps]

    champion, late = falls_from(0.5, 3.4), falls_from(0.8, 3.35)
    assert all(hopeless(late[:n], champion) == "" for n in range(1, LENGTH + 1))


def test_runs_of_few_steps_are_not_compared() -> None:
    few = slice(None, None, LENGTH // 40)
    assert hopeless(curve(3.0, 0.8), curve())
    assert hopeless(curve(3.0, 0.8)[few], curve()[few]) == ""


@given(st.floats(0.25, 0.9), st.floats(1e-3, 1e3))
def test_a_loss_that_grows_far_above_its_beginning_has_exploded_in_any_unit(
    until: float, times: float
) -> None:
    assert exploded(curve(0.0, until, times=times)) == ""
    worse = curve(0.0, until, times=times)
    start = worse[0][1]
    worse = [worse[0], *((at, 1.1 * EXPLODED_TIMES * start) for at, _ in worse[1:])]
    assert "before training" in exploded(worse)
    assert exploded([(at, loss) for at, loss in worse if at < 0.1]) == ""


def test_what_is_zero_or_less_at_first_is_no_loss_that_explodes() -> None:
    odd = [(at, -1.0 + 50 * at) for at, _ in curve(until=0.8)]
    assert exploded(odd) == ""
    assert exploded(()) == ""


def test_silence_is_neither_a_word_nor_work() -> None:
    silence = Silence(100.0, lambda: 7.0)
    heard = [silence.reason(100.0 + second) for second in range(200)]
    first = next(filter(None, heard))
    assert heard.index(first) == 2 * int(SILENCE_S + 1)
    assert "asked for no batch in 122 seconds" in first


@given(st.floats(2 * SILENCE_SHARE, 1.0), st.integers(1, 60))
def test_slow_work_is_not_silence(share: float, minutes: int) -> None:
    now = 0.0
    silence = Silence(0.0, lambda: now * share)
    for _ in range(6 * minutes):
        now += 10.0
        assert silence.reason(now) == ""


def test_who_worked_and_then_hangs_is_noticed() -> None:
    now = 0.0
    silence = Silence(0.0, lambda: min(now, 300.0))
    while not silence.reason(now):
        now += 1.0
    assert 300 + SILENCE_S <= now <= 300 + 3 * SILENCE_S


def test_who_is_heard_in_time_is_never_asked() -> None:
    def unasked() -> float:
        raise AssertionError("CPU time was read")

    silence = Silence(0.0, unasked)
    assert not any(silence.reason(float(second)) for second in range(int(SILENCE_S)))
