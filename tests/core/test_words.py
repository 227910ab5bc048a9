"""The plain data that every package shares."""

from __future__ import annotations

import json
import os
import subprocess
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.pages import CONFIRMATION

from pytest_autoresearch import Budget, Guard, Metric
from pytest_autoresearch.core.outcome import NoScore, Score, Trial
from pytest_autoresearch.core.processes import process_start
from pytest_autoresearch.core.proposal import Usage
from pytest_autoresearch.core.records import Confirmation


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("300s", Budget("wall", 300.0)),
        ("1.5 min", Budget("wall", 90.0)),
        ("2h", Budget("wall", 7200.0)),
        ("600ktok", Budget("work", 600_000.0)),
        ("Equal:1.5Mtok", Budget("equal", 1_500_000.0)),
    ],
)
def test_budget_is_read_and_written(text: str, budget: Budget) -> None:
    assert Budget.parse(text) == budget
    assert Budget.parse(str(budget)) == budget


@pytest.mark.parametrize("text", ["", "300", "-5s", "0s", "5 days", "equal:300s", "nans"])
def test_other_text_is_no_budget(text: str) -> None:
    with pytest.raises(ValueError, match="write 300s, 600ktok or equal:600ktok"):
        Budget.parse(text)


@pytest.mark.parametrize("bounds", [{}, {"at_most": True}, {"at_least": float("nan")}])
def test_guard_without_a_bound_is_refused(bounds: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="bounds nothing"):
        Guard("steps", **bounds)


finite = st.floats(allow_nan=False, allow_infinity=False)


@given(finite, finite, st.sampled_from(["min", "max"]))
def test_less_means_better_in_the_direction_of_the_metric(one, two, direction) -> None:
    new, old = Score(one, direction), Score(two, direction)
    assert (new < old) == (old > new) == (one < two if direction == "min" else one > two)
    assert (new <= old) == (new < old or new == old)
    if Metric(direction=direction).gain(one, two) > 0:
        assert new < old
    assert (hash(new) == hash(old)) == (hash(one) == hash(two))


def test_trial_gives_its_score_by_the_name_of_the_metric() -> None:
    trial = Trial(Metric("accuracy", "max"), 1, 0.5)
    assert trial.accuracy == trial.score == 0.5
    with pytest.raises(AttributeError, match="the metric is 'accuracy'"):
        trial.val_bpb  # noqa: B018
    with pytest.raises(NoScore, match="timeout: too slow"):
        Trial(Metric(), 1, None, "timeout", "too slow").score  # noqa: B018


@given(st.lists(st.tuples(st.integers(0, 9), st.none() | st.floats(0, 1)), max_size=4))
def test_usages_add_up_and_an_unknown_price_stays_unknown(parts) -> None:
    total = Usage()
    for tokens, cost in parts:
        total += Usage("m", output_tokens=tokens, requests=1, cost_usd=cost)
    assert total.output_tokens == sum(tokens for tokens, _ in parts)
    assert total.requests == len(parts)
    assert (total.cost_usd is None) == (not parts or any(cost is None for _, cost in parts))


def test_confirmation_reads_its_stored_form() -> None:
    assert Confirmation.from_json(json.loads(json.dumps(asdict(CONFIRMATION)))) == CONFIRMATION
    assert str(CONFIRMATION.confirmed) == "+0.071200 [+0.051200, +0.091200]"


def test_process_has_a_start_time_until_it_ends() -> None:
    assert process_start(os.getpid()).isdecimal()
    child = subprocess.Popen(["true"])
    child.wait()
    assert process_start(child.pid) == ""
