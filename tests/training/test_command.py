"""Runs of a command: parsing of its output, confinement and limits."""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.runs import all_gone, descendants

from pytest_autoresearch import Budget
from pytest_autoresearch.core.run import Purpose, Run, RunSpec
from pytest_autoresearch.forkserver.launch import Launcher
from pytest_autoresearch.training.command import parse_figures
from pytest_autoresearch.training.run import execute


@pytest.fixture
def run(tmp_path: Path):
    def run(script: str, *, command=("python", "main.py"), **fields) -> Run:
        options = {name: fields.pop(name) for name in ("should_stop",) if name in fields}
        values = {"seed": 7, "budget": Budget.parse("30s"), "wall_limit_s": 60.0, **fields}
        spec = RunSpec(
            "c1", {"main.py": script.encode()}, "main.py", command=tuple(command), **values
        )
        return execute(spec, Launcher(), tmp_path / "runs", **options)

    return run


def test_figures_are_parsed_from_the_output(run):
    result = run(
        "print('---\\nval_bpb: 0.9979\\nMETRIC tokens_M=499.6\\nmfu_percent: 39.8 %\\n"
        "note: fine\\nval_bpb:   0.5')"
    )
    assert (result.status, result.reason, result.score) == ("ok", "", 0.5)
    assert result.metrics == {"tokens_M": 499.6, "mfu_percent": 39.8}
    assert result.score_kind == "self-reported"
    assert result.exit_code == 0
    assert sum(result.causes.values()) == pytest.approx(result.total_seconds, abs=0.05)


def test_environment_has_seed_and_budget_and_no_secrets(run, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret-secret-secret")
    result = run(
        "import os\n"
        "assert 'OPENAI_API_KEY' not in os.environ\n"
        "assert os.environ['AUTORESEARCH_BUDGET'] == '30s'\n"
        "print('val_bpb:', os.environ['AUTORESEARCH_SEED'])\n"
    )
    assert (result.reason, result.score) == ("", 7.0)


def test_command_runs_in_its_own_copy(run, tmp_path):
    result = run(
        "import os\nopen('made.txt', 'w').write('x')\nprint(os.getcwd())\nprint('val_bpb: 1')"
    )
    assert result.status == "ok", result
    assert (tmp_path / "runs" / "c1" / "copy" / "made.txt").read_text() == "x"


@pytest.mark.parametrize(
    ("script", "reason"),
    [
        ("print('loss: 1')", "no line 'val_bpb"),
        ("print('val_bpb: nan')", "val_bpb: nan"),
        ("print('val_bpb: -inf')", "val_bpb: -inf"),
        ("raise RuntimeError('no data')", "status 1: RuntimeError: no data"),
        ("import os; os._exit(3)", "status 3: it printed nothing"),
        ("import ctypes; ctypes.string_at(0)", "SIGSEGV"),
    ],
)
def test_failure_is_a_crash_with_its_reason(run, script, reason):
    result = run(script)
    assert result.status == "crash"
    assert reason in result.reason
    assert result.score is None


def test_missing_program_is_an_infrastructure_failure(run):
    result = run("", command=("no-such-program",))
    assert (result.status, "no-such-program" in result.reason) == ("infra", True)


def test_wall_limit_ends_the_whole_process_group(run):
    before = descendants(os.getpid())
    result = run(
        "import os, time\nif os.fork() == 0: os.setsid()\nprint('val_bpb: 1', flush=True)\n"
        "time.sleep(600)",
        wall_limit_s=3.0,
    )
    assert (result.status, result.score) == ("timeout", None)
    assert all_gone(descendants(os.getpid()) - before)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_over_the_limit_is_a_guard_failure(run):
    result = run(
        "import time\nkept = b'x' * (600 << 20)\ntime.sleep(600)", memory_limit_bytes=300 << 20
    )
    assert (result.status, "memory" in result.reason) == ("guard", True)


def test_should_stop_interrupts_the_command(run):
    result = run("import time; time.sleep(600)", should_stop=lambda: True)
    assert result.status == "interrupted"


def test_smoke_run_of_a_command_executes_nothing(run, tmp_path):
    assert run("1 / 0", purpose=Purpose.SMOKE).status == "ok"
    assert not (tmp_path / "runs" / "c1").exists()


def test_karpathy_autoresearch_summary_is_parsed():
    text = (
        "step 00953 | loss: 2.1\n---\nval_bpb:          0.997900\ntraining_seconds: 300.1\n"
        "total_tokens_M:   499.6\nnum_steps:        953\nnum_params_M:     50.3\n"
    )
    assert parse_figures(text) == {
        "val_bpb": 0.9979,
        "training_seconds": 300.1,
        "total_tokens_M": 499.6,
        "num_steps": 953.0,
        "num_params_M": 50.3,
    }


@given(st.text())
def test_any_output_is_parsed(text):
    for name, value in parse_figures(text).items():
        assert name
        assert isinstance(value, float)


@given(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_]{0,20}", fullmatch=True),
    st.floats(),
    st.sampled_from(["{}: {}", "METRIC {}={}", "  {} : {}  ", "{}={}"]),
)
def test_any_printed_number_is_parsed_exactly(name, value, form):
    found = parse_figures("before\n" + form.format(name, value) + "\nafter: all\n")
    assert found.keys() == {name}
    assert found[name] == value or (math.isnan(found[name]) and math.isnan(value))
