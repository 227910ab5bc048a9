"""The verdict rule: what it keeps, what it asks for, what it never does."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.experiment import Metric
from pytest_autoresearch.judge import (
    KEEP,
    Judge,
    Noise,
    Prior,
    estimate_noise,
    prior_from,
    show,
    t_quantile,
)

scores = st.floats(0.5, 5.0)
NOISE = Noise(0.01, 20)


@pytest.mark.parametrize("rule", ["confirm", "greedy", "strict"])
@given(candidate=st.lists(scores, min_size=1, max_size=4), champion=st.lists(scores, min_size=4, max_size=4),
       direction=st.sampled_from(["min", "max"]))  # fmt: skip
def test_beating_the_bar_is_keeping(rule: str, candidate, champion, direction: str) -> None:
    decision = Judge(rule, direction).decide(
        dict(enumerate(candidate)), dict(enumerate(champion)), NOISE
    )
    mean = math.fsum(candidate) / len(candidate)
    better = Metric(direction=direction).gain(mean, decision.bar) > 0
    assert better == (decision.action == "keep")


@given(st.lists(scores, min_size=1, max_size=4), st.lists(scores, min_size=4, max_size=4))
def test_both_directions_are_mirror_images(candidate: list[float], champion: list[float]) -> None:
    down = Judge("confirm", "min").decide(dict(enumerate(candidate)), dict(enumerate(champion)), NOISE)
    up = Judge("confirm", "max").decide(
        {i: -v for i, v in enumerate(candidate)}, {i: -v for i, v in enumerate(champion)}, NOISE
    )
    assert (down.action, down.bar, down.gain) == (up.action, -up.bar, pytest.approx(up.gain))


@given(scores, scores, st.floats(0, 1))
def test_more_gain_never_makes_a_worse_verdict(one: float, champion: float, more: float) -> None:
    order = {"discard": 0, "replicate": 1, "keep": 2}
    judge = Judge()
    first = judge.decide({1: one}, {1: champion}, NOISE)
    second = judge.decide({1: one - more}, {1: champion}, NOISE)
    assert order[second.action] >= order[first.action]


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", ["confirm", "greedy", "strict"])
def test_a_score_that_is_no_number_is_never_compared(rule: str, bad: float) -> None:
    with pytest.raises(ValueError, match="not finite"):
        Judge(rule).decide({1: bad}, {1: 1.0}, NOISE)
    with pytest.raises(ValueError, match="not finite"):
        Judge(rule).decide({1: 1.0}, {1: bad}, NOISE)


def test_replicates_end_with_a_verdict() -> None:
    judge, champion = Judge(), {1: 1.0, 2: 1.0}
    candidate = {1: 1.0 - 0.02}
    for _ in range(len(KEEP) + 1):
        decision = judge.decide(candidate, champion, NOISE)
        if decision.action != "replicate":
            break
        assert decision.seed not in candidate
        assert decision.remeasure_champion == (decision.seed not in champion)
        champion.setdefault(decision.seed, 1.0)
        candidate[decision.seed] = 1.0 - 0.0155
    assert decision.action in ("keep", "discard")
    assert len(candidate) <= len(KEEP)


def test_greedy_keeps_any_gain_and_confirm_does_not() -> None:
    assert Judge("greedy").decide({1: 0.9999}, {1: 1.0}, NOISE).action == "keep"
    assert Judge("confirm").decide({1: 0.9999}, {1: 1.0}, NOISE).action == "discard"
    assert Judge("strict").decide({1: 0.98}, {1: 1.0}, NOISE).action == "discard"


def test_confirm_rarely_keeps_what_changes_nothing() -> None:
    generator = random.Random(5)
    judge, kept = Judge(), 0
    for _ in range(2000):
        champion = dict.fromkeys(range(4), 1.0)
        candidate = {0: 1.0 + generator.gauss(0, NOISE.sigma)}
        while (decision := judge.decide(candidate, champion, NOISE)).action == "replicate":
            candidate[decision.seed] = 1.0 + generator.gauss(0, NOISE.sigma)
        kept += decision.action == "keep"
    greedy = sum(generator.gauss(0, 1) < 0 for _ in range(2000))
    assert 20 * kept < greedy


def test_a_simpler_program_need_only_be_equal_once_it_is_replicated() -> None:
    champion = dict.fromkeys(range(len(KEEP)), 1.0)
    equal = dict.fromkeys(range(len(KEEP)), 1.0)
    assert Judge().decide(equal, champion, NOISE).action == "discard"
    assert Judge().decide(equal, champion, NOISE, simpler=True).action == "keep"
    assert Judge().decide({0: 1.0}, champion, NOISE, simpler=True).action == "replicate"
    worse = {seed: 1.0 + 0.5 * NOISE.sigma for seed in champion}
    assert Judge().decide(worse, champion, NOISE, simpler=True).action == "discard"
    assert Judge().decide({0: 1.0 + 2 * NOISE.sigma}, champion, NOISE, simpler=True).action == "discard"
    assert Judge("strict").decide(equal, champion, NOISE, simpler=True).action == "discard"


def test_few_degrees_of_freedom_raise_the_bar() -> None:
    assert t_quantile(3.0, 2) > 10 > t_quantile(3.0, 8) > t_quantile(3.0, 1e6)
    assert t_quantile(3.0, 1e7) == pytest.approx(3.0, abs=1e-3)


def test_noise_pools_replicates_with_the_prior() -> None:
    alone = estimate_noise([], Prior(0.01, 8))
    assert (alone.sigma, alone.freedom) == (pytest.approx(0.01), 8)
    quiet = estimate_noise([{1: 0.5, 2: 0.5, 3: 0.5}, {1: 0.1}], Prior(0.01, 8))
    assert quiet.sigma == pytest.approx(0.01 * math.sqrt(8 / 10))
    assert quiet.freedom == 10


def test_a_prior_of_unknown_scale_comes_from_the_calibration() -> None:
    assert prior_from([100.0, 102.0, 104.0]).sigma == pytest.approx(2 * math.sqrt(2))
    assert prior_from([5.0, 5.0, 5.0]).sigma > 0


def test_figures_are_shown_with_their_error() -> None:
    assert show([0.97, 0.98, 0.99, 1.0]) == "0.985000 ± 0.006455 (n=4)"
    assert show([0.97]) == "0.970000 (n=1)"
