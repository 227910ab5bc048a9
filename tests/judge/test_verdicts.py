"""The verdict rule: what it keeps, what it asks for, what it never does."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch import Metric
from pytest_autoresearch.judge.verdicts import (
    ACCEPT,
    FUTILITY,
    Judge,
    Noise,
    Prior,
    earns_wealth,
    eased,
    estimate_noise,
    preview,
    prior_from,
    show,
    t_quantile,
    too_noisy,
)

RULES = ("sequential", "greedy", "threshold")
ORDER = {"discard": 0, "replicate": 1, "keep": 2}
NOISE = Noise(0.01, 20)

scores = st.floats(0.5, 5.0)
by_seed = st.dictionaries(st.integers(1, 6), scores, min_size=1, max_size=6)
pairs = st.lists(st.tuples(scores, scores), min_size=1, max_size=6)
noises = st.builds(Noise, st.floats(1e-6, 1.0), st.floats(1, 200))
rules = st.sampled_from(RULES)
directions = st.sampled_from(["min", "max"])
histories = st.tuples(st.integers(0, 300), st.integers(0, 60))


def split(both: list[tuple[float, float]]) -> tuple[dict[int, float], dict[int, float]]:
    return {n: one for n, (one, _) in enumerate(both)}, {
        n: other for n, (_, other) in enumerate(both)
    }


@given(rules, directions, by_seed, by_seed, noises, histories, st.booleans())
def test_beating_the_bar_is_keeping(
    rule, direction, candidate, champion, noise, history, simpler
) -> None:
    judge, (attempt, keeps) = Judge(rule, direction), history
    if not candidate.keys() & champion.keys():
        with pytest.raises(ValueError, match="share no seed"):
            judge.decide(candidate, champion, noise, attempt, simpler, keeps)
        return
    decision = judge.decide(candidate, champion, noise, attempt, simpler, keeps)
    mean = math.fsum(candidate.values()) / len(candidate)
    better = Metric(direction=direction).gain(mean, decision.bar) > 0
    assert better == (decision.action == "keep")
    assert (decision.seed is not None) == (decision.action == "replicate")


@given(rules, pairs, noises, histories, st.booleans())
def test_both_directions_are_mirror_images(rule, both, noise, history, simpler) -> None:
    (candidate, champion), (attempt, keeps) = split(both), history
    down = Judge(rule, "min").decide(candidate, champion, noise, attempt, simpler, keeps)
    up = Judge(rule, "max").decide(
        {seed: -score for seed, score in candidate.items()},
        {seed: -score for seed, score in champion.items()},
        noise, attempt, simpler, keeps,
    )  # fmt: skip
    assert (down.action, down.bar, down.gain, down.seed) == (up.action, -up.bar, up.gain, up.seed)


@given(rules, directions, pairs, noises, histories, st.booleans(), st.floats(1e-6, 1))
def test_more_gain_never_makes_a_worse_verdict(
    rule, direction, both, noise, history, simpler, more
) -> None:
    (candidate, champion), (attempt, keeps) = split(both), history
    judge = Judge(rule, direction)
    sign = -1 if direction == "min" else 1
    improved = {seed: score + sign * more for seed, score in candidate.items()}
    first = judge.decide(candidate, champion, noise, attempt, simpler, keeps)
    second = judge.decide(improved, champion, noise, attempt, simpler, keeps)
    assert ORDER[second.action] >= ORDER[first.action]


@given(pairs, noises, histories)
def test_what_a_stricter_rule_keeps_every_laxer_one_keeps(both, noise, history) -> None:
    (candidate, champion), (attempt, keeps) = split(both), history
    kept = [
        Judge(rule).decide(candidate, champion, noise, attempt, False, keeps).action == "keep"
        for rule in ("threshold", "sequential", "greedy")
    ]
    assert kept == sorted(kept)


@given(pairs, noises, st.floats(1.01, 10))
def test_more_noise_never_makes_a_keep(both, noise, factor) -> None:
    candidate, champion = split(both)
    louder = Noise(noise.sigma * factor, noise.freedom)
    if Judge().decide(candidate, champion, louder).action == "keep":
        assert Judge().decide(candidate, champion, noise).action == "keep"


@given(st.lists(st.floats(-0.1, 0.1), min_size=12, max_size=12), by_seed, histories, st.booleans())
def test_replicates_end_with_a_verdict(gains, champion, history, simpler) -> None:
    (attempt, keeps), judge, luck = history, Judge(), iter(gains)
    champion = dict(champion)
    candidate = {min(champion): champion[min(champion)] - next(luck)}
    while (
        decision := judge.decide(candidate, champion, NOISE, attempt, simpler, keeps)
    ).action == "replicate":
        assert decision.seed is not None
        assert decision.seed not in candidate
        assert decision.remeasure_champion == (decision.seed not in champion)
        champion.setdefault(decision.seed, 1.0)
        candidate[decision.seed] = champion[decision.seed] - next(luck)
    assert len(candidate) <= len(ACCEPT)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", RULES)
def test_a_score_that_is_no_number_is_never_compared(rule: str, bad: float) -> None:
    for candidate, champion in (
        ({1: bad}, {1: 1.0}),
        ({1: 1.0}, {1: bad}),
        ({1: 1.0, 2: bad}, {1: 1.0}),
    ):
        with pytest.raises(ValueError, match="not finite"):
            Judge(rule).decide(candidate, champion, NOISE, simpler=True)


def test_a_seed_that_the_champion_lacks_weighs_nothing() -> None:
    alone = Judge().decide({2: 1.0}, {2: 1.0, 3: 1.0}, NOISE)
    beside_a_lucky_one = Judge().decide({1: 0.1, 2: 1.0}, {2: 1.0, 3: 1.0}, NOISE)
    assert alone.action == beside_a_lucky_one.action == "discard"
    assert beside_a_lucky_one.gain == 0


def test_greedy_keeps_any_gain_and_confirm_does_not() -> None:
    assert Judge("greedy").decide({1: 0.9999}, {1: 1.0}, NOISE).action == "keep"
    assert Judge("sequential").decide({1: 0.9999}, {1: 1.0}, NOISE).action == "discard"
    assert Judge("threshold").decide({1: 0.98}, {1: 1.0}, NOISE).action == "discard"


def kept_share(judge: Judge, gain: float, noise: Noise, runs: int) -> float:
    """How often a mutation is kept when its scores are drawn and the judge is asked."""
    generator, kept = random.Random(5), 0
    for _ in range(runs):
        champion = dict.fromkeys(range(len(ACCEPT)), 1.0)
        candidate = {0: 1.0 - gain + generator.gauss(0, noise.sigma)}
        while (decision := judge.decide(candidate, champion, noise)).action == "replicate":
            candidate[decision.seed] = 1.0 - gain + generator.gauss(0, noise.sigma)
        kept += decision.action == "keep"
    return kept / runs


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("gain", [0.0, 0.013, 0.02])
def test_the_chance_of_a_keep_is_how_often_it_is_kept(rule: str, gain: float) -> None:
    judge, runs = Judge(rule), 3000
    chance = judge.chance(gain, NOISE)
    error = math.sqrt(chance * (1 - chance) / runs)
    assert kept_share(judge, gain, NOISE, runs) == pytest.approx(chance, abs=4 * error + 2e-3)


def test_what_can_be_told_apart_is_kept_that_often() -> None:
    for rule in ("sequential", "threshold"):
        for chance in (0.5, 0.9):
            effect = Judge(rule).told_apart(NOISE, chance)
            assert Judge(rule).chance(effect, NOISE) == pytest.approx(chance, abs=0.01)
    assert Judge("sequential").told_apart(NOISE) < Judge("threshold").told_apart(NOISE)


def test_the_preview_says_what_can_be_told_apart() -> None:
    line = preview(Noise(0.007, 8), "val_bpb", attempts=20)
    assert line.startswith("noise: sigma 0.007 of a paired difference (8 degrees of freedom)")
    assert f"a gain of {Judge().told_apart(Noise(0.007, 8)):.2g} val_bpb is kept half" in line
    assert line.endswith("of 20 mutations that do nothing at most 0.16 are kept")
    assert "mutations" not in preview(Noise(0.007, 8), "val_bpb")
    greedy = preview(Noise(0.007, 8), "val_bpb", Judge("greedy"), 20)
    assert greedy.endswith("at most 10 are kept")


def test_a_simpler_program_need_only_be_equal_once_it_is_replicated() -> None:
    champion = dict.fromkeys(range(len(ACCEPT)), 1.0)
    equal = dict.fromkeys(range(len(ACCEPT)), 1.0)
    assert Judge().decide(equal, champion, NOISE).action == "discard"
    kept = Judge().decide(equal, champion, NOISE, simpler=True)
    assert (kept.action, kept.simplification) == ("keep", True)
    assert Judge().decide({0: 1.0}, champion, NOISE, simpler=True).action == "replicate"
    worse = {seed: 1.0 + 0.5 * NOISE.sigma for seed in champion}
    assert Judge().decide(worse, champion, NOISE, simpler=True).action == "discard"
    assert Judge().decide({0: 1.0 + NOISE.sigma}, champion, NOISE, simpler=True).action == "discard"
    assert Judge("threshold").decide(equal, champion, NOISE, simpler=True).action == "discard"


@given(directions, pairs, noises, st.booleans())
def test_only_a_gain_is_earned(direction, both, noise, simpler) -> None:
    candidate, champion = split(both)
    decision = Judge("sequential", direction).decide(candidate, champion, noise, 0, simpler)
    if decision.action == "keep":
        mean = math.fsum(candidate.values()) / len(candidate)
        assert earns_wealth(decision.gain, mean, decision.bar, direction) == (
            not decision.simplification
        )


@given(st.floats(0, 5), st.floats(0, 5))
def test_what_keeps_earn_loosens_the_bounds_up_to_a_limit(one: float, other: float) -> None:
    less, more = (eased(ACCEPT, FUTILITY, risk) for risk in sorted((one, other)))
    for before, after in ((less, more), (more, eased(ACCEPT, FUTILITY, 1e9))):
        assert all(x >= y for x, y in zip(before[0] + before[1], after[0] + after[1], strict=True))
    assert all(low <= high for low, high in zip(more[1], more[0], strict=True))
    assert more[0][0] > 1.27  # one in ten of a normal law
    assert eased(ACCEPT, FUTILITY, 0.0) == (ACCEPT, FUTILITY)


def test_a_campaign_without_keeps_earns_nothing() -> None:
    assert Judge().chance(0, NOISE, attempt=50) == Judge().chance(0, NOISE)
    assert Judge().chance(0, NOISE, attempt=50, keeps=5) > Judge().chance(0, NOISE)
    assert Judge(credit=0).chance(0, NOISE, attempt=50, keeps=5) == Judge().chance(0, NOISE)


def test_a_gain_too_small_at_first_is_kept_after_many_keeps() -> None:
    fair = {1: 1.0 - 2.6 * NOISE.sigma}
    assert Judge().decide(fair, {1: 1.0}, NOISE, attempt=20).action == "replicate"
    eased_one = Judge().decide(fair, {1: 1.0}, NOISE, attempt=20, keeps=8)
    assert eased_one.action == "keep"
    assert "8 kept before" in eased_one.explanation
    assert Judge("threshold").decide(fair, {1: 1.0}, NOISE, attempt=20, keeps=8).action == "discard"


def test_few_degrees_of_freedom_raise_the_bar() -> None:
    assert t_quantile(3.0, 2) > 10 > t_quantile(3.0, 8) > t_quantile(3.0, 1e6)
    assert t_quantile(3.0, 1e7) == pytest.approx(3.0, abs=1e-3)


def test_noise_pools_replicates_with_the_prior() -> None:
    alone = estimate_noise([], Prior(0.01, 8))
    assert (alone.sigma, alone.freedom) == (pytest.approx(0.01), 8)
    quiet = estimate_noise([{1: 0.5, 2: 0.5, 3: 0.5}, {1: 0.1}], Prior(0.01, 8))
    assert quiet.sigma == pytest.approx(0.01 * math.sqrt(8 / 10))
    assert quiet.freedom == 10


@given(st.lists(by_seed, max_size=6), st.floats(-3, 3))
def test_noise_does_not_depend_on_how_good_anything_is(groups, shift: float) -> None:
    moved = [{seed: score + shift for seed, score in group.items()} for group in groups]
    before, after = estimate_noise(groups, Prior()), estimate_noise(moved, Prior())
    assert after.sigma == pytest.approx(before.sigma)
    assert after.freedom == before.freedom


def test_a_prior_of_unknown_scale_comes_from_the_calibration() -> None:
    assert prior_from([100.0, 102.0, 104.0]).sigma == pytest.approx(2 * math.sqrt(2))
    assert prior_from([5.0, 5.0, 5.0]).sigma > 0


def test_an_experiment_that_scatters_too_much_is_named_with_its_figures_and_a_remedy() -> None:
    assert too_noisy([2.00, 2.01, 1.99], 0.02) == ""
    assert too_noisy([2.00], 0.0) == ""
    trouble = too_noisy([2.0, 2.2, 1.8], 0.02)
    assert "3 runs of the same code scatter by 0.200000 around 2.000000, more than 2.0%" in trouble
    assert "longer budget" in trouble


def test_figures_are_shown_with_their_error() -> None:
    assert show([0.97, 0.98, 0.99, 1.0]) == "0.985000 ± 0.006455 (n=4)"
    assert show([0.97]) == "0.970000 (n=1)"
