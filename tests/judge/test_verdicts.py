"""Verdict rules, noise estimation and their messages."""

from __future__ import annotations

import math
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch import Metric
from pytest_autoresearch.judge.verdicts import (
    ACCEPT,
    FALSE_KEEPS,
    FUTILITY,
    Judge,
    Noise,
    Prior,
    estimate_noise,
    false_keeps,
    preview,
    prior_from,
    resolution,
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
numbers = st.integers(0, 300)


def split(both: list[tuple[float, float]]) -> tuple[dict[int, float], dict[int, float]]:
    return {n: one for n, (one, _) in enumerate(both)}, {
        n: other for n, (_, other) in enumerate(both)
    }


@given(rules, directions, by_seed, by_seed, noises, numbers, st.booleans())
def test_a_score_better_than_the_bar_is_kept(
    rule, direction, candidate, champion, noise, attempt, simpler
) -> None:
    judge = Judge(rule, direction)
    if not candidate.keys() & champion.keys():
        with pytest.raises(ValueError, match="share no seed"):
            judge.decide(candidate, champion, noise, attempt, simpler)
        return
    decision = judge.decide(candidate, champion, noise, attempt, simpler)
    mean = math.fsum(candidate.values()) / len(candidate)
    better = Metric(direction=direction).gain(mean, decision.bar) > 0
    assert better == (decision.action == "keep")
    assert (decision.seed is not None) == (decision.action == "replicate")


@given(rules, pairs, noises, numbers, st.booleans())
def test_directions_are_symmetric(rule, both, noise, attempt, simpler) -> None:
    candidate, champion = split(both)
    down = Judge(rule, "min").decide(candidate, champion, noise, attempt, simpler)
    up = Judge(rule, "max").decide(
        {seed: -score for seed, score in candidate.items()},
        {seed: -score for seed, score in champion.items()},
        noise, attempt, simpler,
    )  # fmt: skip
    assert (down.action, down.bar, down.gain, down.seed) == (up.action, -up.bar, up.gain, up.seed)


@given(rules, directions, pairs, noises, numbers, st.booleans(), st.floats(1e-6, 1))
def test_more_gain_never_worsens_the_verdict(
    rule, direction, both, noise, attempt, simpler, more
) -> None:
    candidate, champion = split(both)
    judge = Judge(rule, direction)
    sign = -1 if direction == "min" else 1
    improved = {seed: score + sign * more for seed, score in candidate.items()}
    first = judge.decide(candidate, champion, noise, attempt, simpler)
    second = judge.decide(improved, champion, noise, attempt, simpler)
    assert ORDER[second.action] >= ORDER[first.action]


@given(pairs, noises, numbers)
def test_threshold_keeps_imply_sequential_keeps_imply_greedy_keeps(both, noise, attempt) -> None:
    candidate, champion = split(both)
    kept = [
        Judge(rule).decide(candidate, champion, noise, attempt).action == "keep"
        for rule in ("threshold", "sequential", "greedy")
    ]
    assert kept == sorted(kept)


@given(pairs, noises, st.floats(1.01, 10))
def test_more_noise_never_turns_a_discard_into_a_keep(both, noise, factor) -> None:
    candidate, champion = split(both)
    louder = Noise(noise.sigma * factor, noise.freedom)
    if Judge().decide(candidate, champion, louder).action == "keep":
        assert Judge().decide(candidate, champion, noise).action == "keep"


@given(st.lists(st.floats(-0.1, 0.1), min_size=12, max_size=12), by_seed, numbers, st.booleans())
def test_replicates_end_with_a_verdict(gains, champion, attempt, simpler) -> None:
    judge, gain = Judge(), iter(gains)
    champion = dict(champion)
    candidate = {min(champion): champion[min(champion)] - next(gain)}
    while (
        decision := judge.decide(candidate, champion, NOISE, attempt, simpler)
    ).action == "replicate":
        assert decision.seed is not None
        assert decision.seed not in candidate
        assert decision.remeasure_champion == (decision.seed not in champion)
        champion.setdefault(decision.seed, 1.0)
        candidate[decision.seed] = champion[decision.seed] - next(gain)
    assert len(candidate) <= len(ACCEPT)


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("rule", RULES)
def test_non_finite_scores_are_rejected(rule: str, bad: float) -> None:
    for candidate, champion in (
        ({1: bad}, {1: 1.0}),
        ({1: 1.0}, {1: bad}),
        ({1: 1.0, 2: bad}, {1: 1.0}),
    ):
        with pytest.raises(ValueError, match="not finite"):
            Judge(rule).decide(candidate, champion, NOISE, simpler=True)


def test_seeds_missing_from_the_champion_do_not_change_the_verdict() -> None:
    alone = Judge().decide({2: 1.0}, {2: 1.0, 3: 1.0}, NOISE)
    with_extra_seed = Judge().decide({1: 0.1, 2: 1.0}, {2: 1.0, 3: 1.0}, NOISE)
    assert alone.action == with_extra_seed.action == "discard"
    assert with_extra_seed.gain == 0


def test_greedy_keeps_any_gain_and_other_rules_do_not() -> None:
    assert Judge("greedy").decide({1: 0.9999}, {1: 1.0}, NOISE).action == "keep"
    assert Judge("sequential").decide({1: 0.9999}, {1: 1.0}, NOISE).action == "discard"
    assert Judge("threshold").decide({1: 0.98}, {1: 1.0}, NOISE).action == "discard"


def kept_share(judge: Judge, gain: float, noise: Noise, runs: int) -> float:
    """Return the simulated share of mutations with this gain that are kept."""
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
def test_chance_matches_the_simulated_share_of_keeps(rule: str, gain: float) -> None:
    judge, runs = Judge(rule), 3000
    chance = judge.chance(gain, NOISE)
    error = math.sqrt(chance * (1 - chance) / runs)
    assert kept_share(judge, gain, NOISE, runs) == pytest.approx(chance, abs=4 * error + 2e-3)


def test_detectable_gain_is_kept_with_the_given_chance() -> None:
    for rule in ("sequential", "threshold"):
        for chance in (0.5, 0.9):
            effect = Judge(rule).detectable_gain(NOISE, chance)
            assert Judge(rule).chance(effect, NOISE) == pytest.approx(chance, abs=0.01)
    assert Judge("sequential").detectable_gain(NOISE) < Judge("threshold").detectable_gain(NOISE)


def test_preview_shows_detectable_gain_and_false_keeps() -> None:
    line = preview(Noise(0.007, 8), "val_bpb", attempts=20)
    assert line.startswith("noise: sigma 0.007 of a paired difference (8 degrees of freedom)")
    assert f"a gain of {Judge().detectable_gain(Noise(0.007, 8)):.2g} val_bpb is kept half" in line
    mean, share = FALSE_KEEPS[20]
    assert f"of 20 mutations without effect {mean:.2g} are kept ({share:.1%} of such" in line
    assert "mutations" not in preview(Noise(0.007, 8), "val_bpb")
    assert "mutations" not in preview(Noise(0.007, 8), "val_bpb", Judge("greedy"), 20)
    assert "scores repeat exactly" in preview(Noise(1e-9, 1e9, deterministic=True), "ops")


@given(st.integers(1, 10_000))
def test_false_keeps_grow_with_the_attempts(attempts: int) -> None:
    (mean, share), (more, larger) = false_keeps(attempts), false_keeps(attempts + 1)
    assert 0 < mean < more
    assert 0 < share <= larger <= 1
    if attempts in FALSE_KEEPS:
        assert (mean, share) == pytest.approx(FALSE_KEEPS[attempts])


def test_a_simpler_program_is_kept_if_equal_after_all_replicates() -> None:
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


def test_two_stages_keep_replicate_or_discard() -> None:
    sure = Noise(0.01, 1e6)

    def decide(*gains: float) -> str:
        champion = dict.fromkeys(range(3), 1.0)
        candidate = {n: 1.0 - gain * sure.sigma for n, gain in enumerate(gains)}
        return Judge().decide(candidate, champion, sure).action

    high, low, mean = ACCEPT[0], FUTILITY[0], ACCEPT[1] / math.sqrt(2)
    assert [decide(g) for g in (low - 0.1, low + 0.1, high - 0.1, high + 0.1)] == [
        "discard", "replicate", "replicate", "keep",
    ]  # fmt: skip
    assert decide(low + 0.1, 2 * mean - low) == "keep"
    assert decide(low + 0.1, 2 * mean - low - 0.3) == "discard"


def test_a_deterministic_metric_needs_one_run() -> None:
    exact = Noise(0.005, 1e9, deterministic=True)
    for rule in ("sequential", "threshold"):
        assert Judge(rule).decide({1: 0.994}, {1: 1.0}, exact).action == "keep"
        same_step = Judge(rule).decide({1: 0.9951}, {1: 1.0}, exact)
        assert same_step.action == "discard"
        assert "repeat exactly" in same_step.explanation


def test_few_degrees_of_freedom_raise_the_bar() -> None:
    assert t_quantile(3.0, 2) > 10 > t_quantile(3.0, 8) > t_quantile(3.0, 1e6)
    assert t_quantile(3.0, 1e7) == pytest.approx(3.0, abs=1e-3)


def test_noise_pools_repeats_with_the_prior() -> None:
    alone = estimate_noise([], Prior(0.01, 2))
    assert (alone.sigma, alone.freedom) == (pytest.approx(0.01), 2)
    measured = estimate_noise([0.04, -0.04, 0.04, -0.04, 0.04, -0.04], Prior(0.01, 2))
    assert measured.sigma == pytest.approx(math.sqrt((6 * 0.04**2 + 2 * 0.01**2) / 8))
    assert measured.freedom == 8
    assert estimate_noise([0.0, 0.001], Prior(0.001, 1), floor=0.005).sigma == 0.005


def test_a_wrong_prior_does_not_decide() -> None:
    repeats = [0.006, -0.004, 0.007]
    small, right, large = (estimate_noise(repeats, Prior(0.005 * x)).sigma for x in (0.2, 1, 2))
    assert 0.75 * right < small < right < large < 1.5 * right


def test_resolution_of_coarse_and_fine_metrics() -> None:
    assert resolution([0.8, 0.805, 0.815]) == pytest.approx(0.005)
    assert resolution([1 / 3, 2 / 3, 1 / 3, 1.0]) == pytest.approx(1 / 3)
    assert resolution([0.8, 0.8]) == 0
    assert resolution([1.9712345, 1.9832131, 1.98]) == 0
    assert resolution([1.9712345, 1.9832131]) == 0


def test_a_prior_of_unknown_scale_comes_from_the_calibration() -> None:
    prior = prior_from([[100.0, 102.0, 104.0], [7.0]])
    assert (prior.sigma, prior.freedom) == (pytest.approx(2 * math.sqrt(2)), 2)
    assert prior_from([[1.0, 3.0], [11.0, 13.0]]).freedom == 2


def test_too_noisy_names_figures_and_remedy() -> None:
    assert too_noisy([2.00, 2.01, 1.99], 0.02) == ""
    assert too_noisy([2.00], 0.0) == ""
    trouble = too_noisy([2.0, 2.2, 1.8], 0.02)
    assert "3 runs of the same code scatter by 0.200000 around 2.000000, more than 2.0%" in trouble
    assert "longer budget" in trouble


def test_show_formats_mean_error_and_count() -> None:
    assert show([0.97, 0.98, 0.99, 1.0]) == "0.985000 ± 0.006455 (n=4)"
    assert show([0.97]) == "0.970000 (n=1)"
