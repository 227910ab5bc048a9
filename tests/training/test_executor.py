"""The executor: one run in a helper thread, stopped by a flag or by Ctrl-C."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest
from support.runs import all_gone, candidate, descendants, make_spec, shared_launcher, write_dataset

from pytest_autoresearch.training.executor import Executor

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks confined processes")

ENDLESS = candidate("import time\nfor b in batches(1, 1): time.sleep(0.05)")


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "cycle")


def test_run_returns_its_result_and_reports_progress_under_its_id(data, tmp_path):
    names = set()
    executor = Executor(
        shared_launcher(), tmp_path, on_progress=lambda name, progress: names.add(name)
    )
    result = executor.run(make_spec(data, run_id="t1"))
    assert (result.status, names) == ("ok", {"t1"})


def test_run_stops_when_the_flag_is_set(data, tmp_path):
    phases = []
    executor = Executor(
        shared_launcher(), tmp_path, on_progress=lambda name, progress: phases.append(progress.work)
    )
    result = executor.run(make_spec(data, ENDLESS, "600s"), lambda: any(phases))
    assert result.status == "interrupted"


def test_ctrl_c_stops_the_run_and_propagates(data, tmp_path):
    executor = Executor(shared_launcher(), tmp_path)
    assert executor.run(make_spec(data)).status == "ok"  # starts the shared forkserver
    before = descendants(os.getpid())
    sent = []

    def interrupt(name, progress):
        if progress.work > 3 and not sent:
            sent.append(name)
            os.kill(os.getpid(), signal.SIGINT)

    executor = Executor(shared_launcher(), tmp_path, on_progress=interrupt)
    with pytest.raises(KeyboardInterrupt):
        executor.run(make_spec(data, ENDLESS, "600s"))
    assert all_gone(descendants(os.getpid()) - before)


def test_error_in_the_progress_callback_is_an_infrastructure_failure(data, tmp_path):
    def broken(name, progress):
        raise ZeroDivisionError("callback")

    result = Executor(shared_launcher(), tmp_path, on_progress=broken).run(make_spec(data))
    assert (result.status, "ZeroDivisionError" in result.reason) == ("infra", True)
