from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.runs import candidate, make_spec, shared_launcher, write_dataset

from pytest_autoresearch.training.executor import (
    ExecutorClosed,
    Finished,
    LocalExecutor,
    RunExecutor,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks confined processes")

ENDLESS = candidate("import time\nfor b in batches(1, 1): time.sleep(0.05)")


@pytest.fixture
def launcher():
    return shared_launcher()


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "cycle")


@pytest.fixture
def make_executor(launcher, tmp_path):
    made = []

    def make(**options) -> RunExecutor:
        made.append(LocalExecutor(launcher, tmp_path, **options))
        return made[-1]

    yield make
    for executor in made:
        executor.close()


def take(executor: RunExecutor, count: int) -> list[Finished]:
    found = [executor.wait_any(60) for _ in range(count)]
    assert None not in found
    return found


def test_every_submitted_run_comes_back_once(make_executor, data):
    seen = set()
    executor = make_executor(capacity=2, on_progress=lambda name, progress: seen.add(name))
    specs = [replace(make_spec(data, seed=n), run_id=f"t{n}") for n in range(3)]
    for spec in specs:
        executor.submit(spec)
    finished = take(executor, 3)
    assert {name for name, _ in finished} == {"t0", "t1", "t2"} == seen
    assert {result.status for _, result in finished} == {"ok"}
    assert executor.wait_any(60) is None


def test_runs_beside_each_other_score_what_they_score_alone(make_executor, data):
    claimed = []
    for capacity in (1, 2):
        executor = make_executor(capacity=capacity)
        for n in range(2):
            executor.submit(replace(make_spec(data, seed=n), run_id=f"t{n}"))
        claimed.append({n: r.evidence["claimed_bpb"] for n, r in take(executor, 2)})
    assert claimed[0] == claimed[1]


def test_running_and_waiting_runs_can_be_cancelled(make_executor, data):
    executor = make_executor(capacity=1)
    for name in ("running", "waiting"):
        executor.submit(replace(make_spec(data, ENDLESS, "600s"), run_id=name))
    assert executor.wait_any(0.5) is None
    for name in ("running", "waiting", "unknown"):
        executor.cancel(name)
    finished = dict(take(executor, 2))
    assert {result.status for result in finished.values()} == {"interrupted"}


def test_closing_ends_what_runs(make_executor, data):
    executor = make_executor()
    executor.submit(make_spec(data, ENDLESS, "600s"))
    executor.close()
    with pytest.raises(ExecutorClosed):
        executor.submit(make_spec(data))
    assert take(executor, 1)[0].result.status == "interrupted"


def test_an_id_in_use_is_refused(make_executor, data):
    executor = make_executor()
    executor.submit(make_spec(data))
    with pytest.raises(ValueError, match="trial-1"):
        executor.submit(make_spec(data))
    take(executor, 1)
    executor.submit(make_spec(data))
    take(executor, 1)


def test_a_broken_onlooker_is_reported_and_does_not_hang(make_executor, data):
    def broken(name, progress):
        raise ZeroDivisionError("onlooker")

    executor = make_executor(on_progress=broken)
    executor.submit(make_spec(data))
    result = take(executor, 1)[0].result
    assert (result.status, "ZeroDivisionError" in result.reason) == ("infra", True)
