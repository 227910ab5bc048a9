"""Causes of results, from figures of runs on the same seeds."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.campaigns import results

from pytest_autoresearch.core.records import Attempt
from pytest_autoresearch.core.run import Purpose, Run
from pytest_autoresearch.judge.causes import Diagnosis


def run(seed: int, work: float = 1000, lead: float = 0.0, **fields: object) -> Run:
    """Return a run whose loss at work w is ``5 - w / 500``, less `lead`."""
    curve = tuple((n / 1000, 5 - lead - n / 1000 * work / 500) for n in range(1000))
    values = {"steps": int(work / 10), "cpu_seconds": 3.0, "curve": curve} | fields
    return Run("ok", score=1.0, seed=seed, work=work, purpose=Purpose.FIRST, **values)


def attempt(number: int, *runs: Run, verdict: str = "discard", **fields: object) -> Attempt:
    values = {"kind": "mutation", "champion_before": 1, "gain": -0.02, "gain_sigma": -2.0} | fields
    return Attempt(
        number, f"m-{number}", number=number, session_id=1, worker="w", state="done", started=0.0,
        verdict=verdict, runs=runs, **values,
    )  # fmt: skip


BASELINES = [
    attempt(n, run(n), kind="baseline", verdict="baseline", gain=None, gain_sigma=None)
    for n in (1, 2)
]


def cause(one: Attempt) -> str:
    return Diagnosis([*BASELINES, one]).cause(one)


@pytest.mark.parametrize(
    ("work", "lead", "gain", "expected"),
    [
        (1000, 0.0, -0.02, "learned worse at equal tokens"),
        (1010, -0.1, -0.02, "learned worse at equal tokens"),
        (900, 0.0, -0.02, "slower"),
        (900, 0.1, -0.02, "slower"),
        (900, -0.1, -0.02, "slower, and learned worse at equal tokens"),
        (1100, -0.1, -0.02, "learned worse, though faster"),
        (1000, 0.1, 0.02, "learned better at equal tokens"),
        (1100, 0.0, 0.02, "faster"),
        (1100, 0.1, 0.02, "faster, and learned better at equal tokens"),
        (900, 0.1, 0.02, "learned better, though slower"),
    ],
)
def test_cause_tells_speed_from_learning(work, lead, gain, expected) -> None:
    one = attempt(5, run(2, work, lead), gain=gain, gain_sigma=100 * gain)
    assert cause(one) == expected


def test_small_gain_is_within_noise_and_a_gain_without_a_pair_has_a_direction_only() -> None:
    assert cause(attempt(5, run(2, 500), gain_sigma=-0.9)) == "within noise"
    assert cause(attempt(5, run(2), verdict="keep", gain_sigma=0.5)) == "equal, and simpler"
    assert cause(attempt(5, run(7))) == "worse"
    assert cause(attempt(5, Run("ok", score=1.0, seed=2, purpose=Purpose.FIRST))) == "worse"
    assert cause(BASELINES[0]) == ""


@pytest.mark.parametrize(
    ("verdict", "reason", "expected"),
    [
        ("crash", "RuntimeError: sizes (train.py, line 3)", "crash: RuntimeError"),
        ("crash", "logits() raised an error: AssertionError: T", "crash: AssertionError"),
        ("crash", "the training loss became nan after 3 steps", "crash: not finite"),
        ("crash", "2.00% of the model's losses are not finite", "crash: not finite"),
        ("crash", "the model holds 9 bytes; at most 8 are accepted", "crash: checkpoint"),
        ("crash", "the training process was killed by signal 9", "crash: process ended"),
        ("crash", "no reason that is known", "crash"),
        ("timeout", "train() went on", "timeout"),
        ("duplicate", "the same as mutation-0001", "duplicate"),
    ],
)
def test_failure_has_its_class(verdict, reason, expected) -> None:
    one = attempt(5, verdict=verdict, reason=reason, gain=None, gain_sigma=None)
    assert cause(one) == expected


def test_figures_are_means_over_the_runs_beside_the_champions_of_the_same_seeds() -> None:
    parts = {"forward_ms": 8.0, "backward_ms": 9.0, "other": 1.0}
    one = attempt(
        5,
        run(1, 1200, metrics=parts, evidence={"worst_token_nats": 102.8}, parameters=7),
        run(2, 1000, 0.2, metrics=parts),
        Run("crash", seed=3, purpose=Purpose.REPLICATE),
    )
    measured = Diagnosis([*BASELINES, one]).measured(one)
    assert (measured.seeds, measured.steps, measured.work) == ((1, 2), 110, 1100)
    assert measured.step_ms == pytest.approx((3000 / 120 + 3000 / 100) / 2)
    assert measured.parts == {"forward": 8.0, "backward": 9.0}
    assert (measured.worst_token, measured.parameters) == (102.8, 7)
    assert measured.more_work == pytest.approx(0.1)
    assert measured.lead == pytest.approx(0.1, abs=0.01)
    assert measured.train_loss == pytest.approx((5 - 0.9495 * 2.4 + 5 - 0.2 - 0.9495 * 2) / 2)
    best = Diagnosis([*BASELINES, one]).of_champion(BASELINES[0])
    assert best.seeds == (1, 2)


def test_time_of_a_step_is_wall_time_on_cuda() -> None:
    one = attempt(5, run(1, device="cuda:0", train_seconds=1.0))
    assert Diagnosis([one]).measured(one).step_ms == pytest.approx(10.0)


@given(st.lists(results, max_size=3), st.lists(results, max_size=3), st.floats(allow_nan=False))
def test_no_run_of_a_candidate_breaks_the_diagnosis(own, rivals, gain) -> None:
    base = attempt(1, *rivals, kind="baseline", verdict="baseline", gain=None)
    one = attempt(5, *own, gain=gain, gain_sigma=gain)
    diagnosis = Diagnosis([base, one])
    assert diagnosis.cause(one)
    measured = diagnosis.measured(one)
    assert all(map(math.isfinite, (measured.steps, measured.step_ms, measured.train_loss)))
