"""Measurement of an attempt, with runs answered by a function."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pytest_autoresearch import Budget, Experiment, Guard
from pytest_autoresearch.campaign.attempt import WorkingAttempt
from pytest_autoresearch.campaign.measure import Measurement
from pytest_autoresearch.core.errors import InfrastructureFailure
from pytest_autoresearch.core.run import Run
from pytest_autoresearch.judge.verdicts import Judge, Noise
from pytest_autoresearch.ledger.store import Ledger

BASE = {"train.py": "LR = 1\n"}
MUTANT = {"train.py": "LR = 2\n"}
Answer = Callable[[Mapping[str, str], int, str], Run]


class Bench:
    """A measurement whose trials are answered by a function."""

    def __init__(self, path: Path, answer: Answer, number: int = 1, guards: tuple[Guard, ...] = ()):
        self.ledger = Ledger.open(path, "t")
        session = self.ledger.begin_session(driver="d")
        self._answer, self.path, self.asked = answer, path, cast(list[tuple[str, int]], [])
        for name, kind in (("baseline-1", "baseline"), (f"mutation-{number:04d}", "mutation")):
            record = self.ledger.start_attempt(
                session_id=session, worker="main", name=name, kind=kind, number=number
            )
            if kind == "baseline":
                self.ledger.finish_attempt(record.id, verdict="baseline", score=1.0)
                self.ledger.promote(0, record.id, "base", {1: 1.0, 2: 1.0})
        self.attempt = WorkingAttempt(record, files=dict(MUTANT), before=dict(BASE))
        self.measurement = Measurement(cast(Any, self), Judge("sequential", "min"))
        self.measurement.experiment = Experiment(guards=guards)

    experiment = Experiment()
    facts = SimpleNamespace(budget=Budget("work", 1000.0), base_commit="base")
    device = SimpleNamespace(kind="cpu", name="cpu")

    def champion(self) -> Any:
        return self.ledger.champion()

    def calibration(self) -> tuple[()]:
        return ()

    def memory_bound(self) -> None:
        return None

    def noise(self, attempts: object = None) -> Noise:
        return Noise(0.01, 8.0)

    def read(self, commit: str) -> dict[str, str]:
        return BASE

    def shape(self, commit: str) -> Any:
        from pytest_autoresearch.source.fingerprint import shape

        return shape(BASE)

    def run(
        self, attempt: WorkingAttempt, code: Any, seed: int, purpose: str, **changes: Any
    ) -> Run:
        self.asked.append((purpose, seed))
        run = self.ledger.start_run(
            attempt.record.id,
            seed=seed,
            purpose=purpose,
            device="cpu",
            concurrency=1,
            budget="1ktok",
        )
        result = self._answer(code, seed, purpose)
        self.ledger.finish_run(run, result)
        return result


def scored(score: float) -> Run:
    return Run("ok", score=score, checkpoint=Path("/runs/1/checkpoint.safetensors"))


def cloze(accuracy: float) -> Run:
    return Run("ok", metrics={"cloze_accuracy": accuracy})


@pytest.mark.parametrize("answer", [cloze(0.0), Run("crash", reason="boom")])
def test_discard_that_breaks_a_downstream_bound_is_not_kept(tmp_path: Path, answer: Run) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        return answer if purpose == "downstream" else scored(0.999)

    bench = Bench(tmp_path, run, 10, (Guard("cloze_accuracy", at_least=0.5),))
    trial = bench.measurement.measure(bench.attempt)
    assert ("downstream", 1) in bench.asked
    assert trial.value == pytest.approx(0.999)
    assert not trial.score < bench.measurement.bar(bench.attempt)  # 0.1 sigma is no gain
    assert "for noise" in bench.measurement.bar(bench.attempt).explanation


def test_model_that_refuses_the_downstream_task_breaks_its_bound(tmp_path: Path) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        if purpose == "downstream":
            return Run("crash", reason="logits() failed")
        return scored(0.5)

    bench = Bench(tmp_path / "a", run, 1, (Guard("cloze_accuracy", at_least=0.5),))
    trial = bench.measurement.measure(bench.attempt)
    assert (trial.value, trial.verdict) == (None, "guard")
    assert trial.reason == "cloze_accuracy could not be measured: logits() failed"
    bench = Bench(tmp_path / "b", run)
    assert bench.measurement.measure(bench.attempt).value == 0.5


def test_champion_that_fails_on_one_seed_is_compared_on_another(tmp_path: Path) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        if purpose == "champion":
            return Run("crash", reason="nan") if seed == 3 else scored(1.0)
        return scored(0.98)  # 2 sigma: trained on a second seed

    bench = Bench(tmp_path, run)
    bench.ledger.replace_champion_scores(1, {2: 1.0})
    trial = bench.measurement.measure(bench.attempt)
    assert trial.value == pytest.approx(0.98)
    assert set(bench.attempt.scores) <= set(bench.champion().scores)
    assert ("champion", 3) in bench.asked
    assert set(bench.attempt.scores) == {2, 4}


@pytest.mark.parametrize(("kind", "expected"), [("work", {1: 1.0, 2: 1.0}), ("wall", {2: 0.9})])
def test_every_twentieth_attempt_repeats_the_champion(tmp_path: Path, kind, expected) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        return scored(0.9 if purpose == "repeat" else 1.0)

    said: list[str] = []
    bench = Bench(tmp_path, run, 20)
    bench.facts = SimpleNamespace(**{**vars(bench.facts), "budget": Budget(kind, 1000.0)})
    bench.measurement.facts, bench.measurement.say = cast(Any, bench.facts), said.append
    bench.measurement.measure(bench.attempt)
    assert bench.asked[0] == ("repeat", 2)
    assert bench.champion().scores == expected
    assert "champion now has 0.900000 on seed 2, and had 1.000000" in said[0]
    bench = Bench(tmp_path / "other", run, 19)
    bench.measurement.measure(bench.attempt)
    assert "repeat" not in dict(bench.asked)


def test_an_idle_device_trains_a_champion_of_one_seed_on_a_second(tmp_path: Path) -> None:
    bench = Bench(tmp_path, lambda code, seed, purpose: scored(1.0))
    bench.facts = SimpleNamespace(**{**vars(bench.facts), "baseline_seeds": (1, 2, 3)})
    bench.measurement.facts = cast(Any, bench.facts)
    bench.measurement.second_seed(bench.attempt)
    assert bench.asked == []
    bench.ledger.replace_champion_scores(1, {2: 1.0})
    bench.measurement.second_seed(bench.attempt)
    assert bench.asked == [("champion", 3)]
    assert set(bench.champion().scores) == {2, 3}


def test_champion_that_always_fails_is_an_infrastructure_failure(tmp_path: Path) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        if purpose == "champion":
            return Run("crash", reason="nan")
        return scored(0.98)

    bench = Bench(tmp_path, run)
    bench.ledger.replace_champion_scores(1, {1: 1.0})
    with pytest.raises(InfrastructureFailure, match="the champion has no score on seed 4"):
        bench.measurement.measure(bench.attempt)


def test_checks_that_time_out_are_a_guard_verdict_with_a_score(tmp_path: Path) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        if purpose == "check":
            return Run("timeout", reason="over its limit of 630 s in all", log_head="one\n")
        return scored(0.5)

    bench = Bench(tmp_path, run)
    bench.measurement.experiment = Experiment(checks="sleep 9999")
    trial = bench.measurement.measure(bench.attempt)
    assert (trial.value, trial.verdict) == (None, "guard")
    assert trial.reason == "the experiment's checks: over its limit of 630 s in all\none"


def test_bound_broken_by_a_replicate_is_noted(tmp_path: Path) -> None:
    def run(code: Mapping[str, str], seed: int, purpose: str) -> Run:
        latency = 9.0 if purpose == "replicate" else 1.0
        return Run("ok", score=0.98, metrics={"latency": latency})

    bench = Bench(tmp_path, run, 1, (Guard("latency", at_most=2.0),))
    assert bench.measurement.measure(bench.attempt).verdict == "guard"
    notes = bench.ledger.attempt(bench.attempt.record.id).check_notes
    assert [(n.ok, n.detail) for n in notes if n.name == "guard latency"] == [
        (True, "latency 1"),
        (False, "latency 9 is above its bound 2"),
    ]
