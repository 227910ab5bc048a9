"""Whole runs of small candidates, from files to a result."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from support.runs import (
    BUILD,
    HONEST,
    all_gone,
    candidate,
    descendants,
    make_spec,
    shared_launcher,
    write_dataset,
)

from pytest_autoresearch.core.run import Allowances, Purpose, Run
from pytest_autoresearch.forkserver.launch import Job
from pytest_autoresearch.training.run import execute

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks confined processes")


OPTIONS = {"on_progress", "should_stop", "sandbox_mode"}


@pytest.fixture
def launcher(tmp_path):
    """Return the shared launcher with a running forkserver, which is then no new process."""
    launcher = shared_launcher()
    launcher.start(Job("train", tmp_path, "train.py", tmp_path / "checkpoint")).kill()
    return launcher


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("data") / "cycle")


@pytest.fixture
def run(launcher, data, tmp_path):
    """Return a function that runs a candidate and checks its time accounting."""

    def run(train_py: str = HONEST, budget: str = "4ktok", **fields) -> Run:
        options = {name: fields.pop(name) for name in OPTIONS & fields.keys()}
        spec = make_spec(fields.pop("data", data), train_py, budget, **fields)
        result = execute(spec, launcher, tmp_path, **options)
        assert sum(result.causes.values()) == pytest.approx(result.total_seconds, abs=0.05)
        return result

    return run


def test_candidate_is_trained_and_scored(run, tmp_path):
    result = run(seed=3)
    assert (result.status, result.reason) == ("ok", "")
    assert 0 < result.score < 5
    assert (result.work, result.steps) == (31 * 128, 31)
    assert result.parameters == 32 * 16 + 16 * 32 + 32
    assert len(result.curve) == 31
    assert [fraction for fraction, _ in result.curve] == sorted(f for f, _ in result.curve)
    assert result.log_head.startswith("trained to")
    assert result.checkpoint == tmp_path / "run-1" / "checkpoint.safetensors"
    assert result.checkpoint.stat().st_size > 4 * result.parameters
    assert result.losses.stat().st_size == 4 * 124 * 16
    assert result.peak_memory_bytes > 50 << 20
    assert set(result.causes) >= {"start", "train", "save", "score", "audit", "other"}
    assert result.hashes["data"]
    assert not (tmp_path / "run-1" / "work").exists()


def test_same_seed_and_tokens_give_identical_weights_and_losses(run):
    weights = []
    for seed in (5, 5, 6):
        result = run(seed=seed)
        weights.append(result.checkpoint.read_bytes() + result.losses.read_bytes())
    assert weights[0] == weights[1]
    assert weights[0] != weights[2]


@pytest.mark.parametrize(("budget", "batches"), [("1280tok", 10), ("1279tok", 9), ("1ktok", 7)])
def test_token_budget_is_never_exceeded(run, budget, batches):
    result = run(budget=budget)
    assert result.steps == batches
    assert result.work == batches * 128


def test_wall_budget_is_kept_within_one_step(run):
    slow = candidate("import time\nfor x, y, p in batches(1, 1): time.sleep(0.1)")
    result = run(slow, budget="1s")
    assert result.status == "ok"
    assert 9 <= result.steps <= 11


def test_budget_starts_at_the_first_batch_request(run):
    late = candidate("import time\ntime.sleep(1)\nfor x, y, p in batches(1, 1): time.sleep(0.02)")
    result = run(late, budget="0.5s")
    assert result.status == "ok"
    assert result.train_seconds == pytest.approx(0.5, abs=0.1)
    assert result.causes["start"] > 1


def test_patched_clocks_in_the_candidate_have_no_effect(run):
    patched = candidate(
        """
        import time
        for name in ("time", "monotonic", "perf_counter", "process_time"):
            setattr(time, name, lambda: 0.0)
        steps = 0
        for x, y, progress in batches(4, 16):
            steps += 1
        """
    )
    result = run(patched, budget="640tok")
    assert (result.status, result.steps) == ("ok", 10)


def test_batches_have_the_documented_shapes_and_progress(run):
    check = candidate(
        """
        import torch
        seen = []
        for x, y, progress in batches(4, 16):
            assert x.dtype == y.dtype == torch.int64 and x.shape == y.shape == (4, 16)
            assert (x[:, 1:] == y[:, :-1]).all() and x.max() < 32
            seen.append(progress)
        assert seen == [i / 10 for i in range(10)], seen
        assert list(batches(4, 16)) == []
        """
    )
    assert run(check, budget="640tok").reason == ""


def test_different_code_sees_the_same_batches(run):
    dump = "for i, (x, y, p) in enumerate(batches(4, 16)): print(x.sum().item())"
    one, two = (run(candidate(f"{extra}\n{dump}"), budget="640tok") for extra in ("", "1 + 1"))
    assert one.log_head == two.log_head
    assert len(one.log_head.split()) == 10


CRASHES = {
    "an exception": (
        "raise ValueError('no\\nthanks')",
        r"ValueError: no thanks \(train.py, line \d+\)",
    ),
    "a syntax error": (None, "SyntaxError"),
    "sys.exit": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "a silent exit": ("import os; os._exit(0)", "exited with status 0"),
    "a fault": ("import ctypes; ctypes.string_at(0)", "was killed by SIGSEGV"),
    "no batch asked for": ("return", "without asking for a batch"),
    "a nan loss": (
        "for x, y, p in batches(4, 16): batches.report(loss=float('nan'))",
        "loss became nan after 1 steps",
    ),
    "an exploding loss": (
        "for i, _ in enumerate(batches(1, 16)): batches.report(loss=1.0 + i)",
        r"stopped at \d+% of its budget: the training loss",
    ),
    "a batch over the budget": ("next(iter(batches(300, 16)))", "within this budget a batch may hold 4000"),
    "a batch over all bounds": ("next(iter(batches(10**9, 10**9)))", "the maximum is"),
    "a nonsensical batch": ("next(iter(batches(0, 16)))", "batch_size 0"),
    "a row over the budget": ("next(iter(batches(1, 50_000)))", "within this budget a batch may hold 4000"),
    "a closed channel": (
        "next(iter(batches(4, 16)))\nimport os, time\nos.closerange(3, 64)\ntime.sleep(600)",
        "killed by SIGKILL|exited",
    ),
    "a huge frame": (
        "next(iter(batches(4, 16)))\nc = batches._channel._socket\nc.setblocking(True)\n"
        "c.sendall(b'\\xff' * 4)\nimport time; time.sleep(600)",
        "frame of 4294967295 bytes",
    ),
    "bad json": (
        "next(iter(batches(4, 16)))\nc = batches._channel._socket\n"
        "c.sendall(b'\\x02\\0\\0\\0{]')\nimport time; time.sleep(600)",
        "not JSON",
    ),
    "a message out of turn": (
        "batches._channel.send({'type': 'ready'})\nimport time; time.sleep(600)",
        "no 'batch' message",
    ),
    "a false done": (
        "next(iter(batches(4, 16)))\nbatches._channel.send({'type': 'done'})\n"
        "import time; time.sleep(600)",
        "no checkpoint",
    ),
    "a checkpoint that is a link": (
        "next(iter(batches(4, 16)))\nimport os, time\n"
        "os.symlink('/etc/passwd', 'checkpoint.safetensors')\n"
        "batches._channel.send({'type': 'done'})\ntime.sleep(600)",
        "no checkpoint",
    ),
    "a checkpoint that is a pipe": (
        "next(iter(batches(4, 16)))\nimport os, time\nos.mkfifo('checkpoint.safetensors')\n"
        "batches._channel.send({'type': 'done'})\ntime.sleep(600)",
        "not a regular file|checkpoint",
    ),
    "a checkpoint that grew": (
        "import torch\nnext(iter(batches(4, 16)))\n"
        "model.register_buffer('table', torch.zeros(1 << 20))",
        r"holds \d+ bytes; at most \d+ are accepted",
    ),
    "a sparse checkpoint": (
        "next(iter(batches(4, 16)))\nimport os\n"
        "os.truncate(os.open('checkpoint.safetensors', os.O_CREAT | os.O_RDWR), 1 << 32)\n"
        "batches._channel.send({'type': 'done'})\nimport time; time.sleep(600)",
        r"holds 4294967296 bytes; at most \d+ are accepted",
    ),
    "a checkpoint with unnamed bytes": (
        "next(iter(batches(4, 16)))\nimport safetensors.torch, time\n"
        "safetensors.torch.save_model(model, 'checkpoint.safetensors')\n"
        "open('checkpoint.safetensors', 'ab').write(b'x' * 1000)\n"
        "batches._channel.send({'type': 'done'})\ntime.sleep(600)",
        "header does not describe its tensors",
    ),
    "a checkpoint with a nonsensical header": (
        "next(iter(batches(4, 16)))\nimport time\n"
        "header = b'{\"a\":{\"shape\":[\"x\"],\"data_offsets\":[0]}}'\n"
        "open('checkpoint.safetensors', 'wb').write(len(header).to_bytes(8, 'little') + header)\n"
        "batches._channel.send({'type': 'done'})\ntime.sleep(600)",
        "header does not describe its tensors",
    ),
}  # fmt: skip


def test_rows_longer_than_the_data_are_rejected(run):
    result = run(candidate("next(iter(batches(1, 50_000)))"), budget="100ktok")
    assert (result.status, "stream holds 39375" in result.reason) == ("crash", True)


@pytest.mark.parametrize("name", CRASHES)
def test_protocol_violation_is_a_crash_with_a_reason(run, name):
    body, reason = CRASHES[name]
    result = run("def build(:" if body is None else candidate(body))
    assert result.status == "crash", result
    assert result.score is None
    assert result.reason
    assert "\n" not in result.reason
    assert re.search(reason, result.reason), result.reason


def test_missing_function_is_named(run):
    result = run(BUILD)
    assert (result.status, "defines no function train" in result.reason) == ("crash", True)


def test_crash_names_the_line_and_the_log_keeps_the_traceback(run):
    source = candidate("x = 1\nraise KeyError('depth')")
    line = source.splitlines().index("    raise KeyError('depth')") + 1
    result = run(source)
    assert result.reason == f"KeyError: 'depth' (train.py, line {line})"
    assert "Traceback" in result.log_head


def test_training_past_the_budget_is_a_timeout(run):
    overrun = candidate("for x, y, p in batches(4, 16): pass\nwhile True: pass")
    result = run(overrun, budget="640tok", allowances=Allowances(save_cpu_s=0.5))
    assert result.status == "timeout"
    assert "after its budget had ended" in result.reason


def test_not_requesting_batches_is_a_timeout(run):
    endless = candidate("next(iter(batches(4, 16)))\nwhile True: pass")
    result = run(endless, budget="0.5s")
    assert result.status == "timeout"
    assert "did not come back" in result.reason


def test_hang_ends_at_the_wall_limit(run):
    result = run(candidate("import time; time.sleep(600)"), wall_limit_s=2.0)
    assert (result.status, "limit of 2 s" in result.reason) == ("timeout", True)
    assert result.total_seconds < 30


def test_startup_is_limited_in_cpu_seconds(run):
    result = run(candidate("while True: pass"), allowances=Allowances(start_cpu_s=0.5))
    assert (result.status, "0.5 CPU seconds" in result.reason) == ("timeout", True)


def test_sleeping_during_startup_is_allowed(run):
    body = "import time\ntime.sleep(1.5)\nfor b in batches(4, 16): pass"
    assert run(candidate(body), allowances=Allowances(start_cpu_s=1.0)).status == "ok"


@pytest.mark.slow
def test_memory_over_the_limit_is_a_guard_failure(run):
    large = candidate(
        "next(iter(batches(4, 16)))\nkept = b'x' * (2 << 30)\nimport time; time.sleep(600)"
    )
    result = run(large, memory_limit_bytes=900 << 20)
    assert (result.status, "memory" in result.reason) == ("guard", True)


@pytest.mark.slow
def test_too_many_processes_are_a_guard_failure_and_all_end(run):
    swarm = candidate(
        """
        import os, time
        next(iter(batches(4, 16)))
        first = os.getpid()
        for _ in range(9):
            os.fork()
        if os.getpid() != first:  # children close the channel, so that only the limit ends the run
            os.closerange(3, 256)
        time.sleep(600)
        """
    )
    before = descendants(os.getpid())
    result = run(swarm)
    assert (result.status, "processes" in result.reason) == ("guard", True)
    assert all_gone(descendants(os.getpid()) - before)


@pytest.fixture
def small_disk(tmp_path):
    """Mount a file system of 100 MiB at `tmp_path`."""
    command = ["mount", "-t", "tmpfs", "-o", "size=100m", "tmpfs", str(tmp_path)]
    if subprocess.run(command, capture_output=True).returncode:
        pytest.skip("only root may mount a small file system")
    yield tmp_path
    subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


FULL_DISK = "raise OSError(28, os.strerror(28))"


def test_disk_that_the_candidate_filled_is_its_crash(run, small_disk):
    fills = candidate(
        "import os, time\nnext(iter(batches(4, 16)))\n"
        f"os.posix_fallocate(os.open('x', os.O_CREAT | os.O_RDWR), 0, 30 << 20)\n{FULL_DISK}"
    )
    os.posix_fallocate(os.open(small_disk / "other", os.O_CREAT | os.O_RDWR), 0, 20 << 20)
    result = run(fills)
    assert (result.status, "No space left" in result.reason) == ("crash", True), result.reason


def test_disk_that_was_full_before_is_an_infrastructure_failure(run, small_disk):
    os.posix_fallocate(os.open(small_disk / "other", os.O_CREAT | os.O_RDWR), 0, 80 << 20)
    result = run(candidate(f"import os\nnext(iter(batches(4, 16)))\n{FULL_DISK}"))
    assert (result.status, "MiB left" in result.reason) == ("infra", True), result.reason


def test_model_larger_than_its_limit_is_a_crash_before_training(run):
    result = run(checkpoint_limit_bytes=1000)
    assert (result.status, result.steps) == ("crash", 0)
    assert result.reason.startswith("the model holds 4224 bytes; at most 1000 are accepted")


def test_parameters_are_measured_in_the_checkpoint(run):
    lying = candidate(
        "for batch in batches(4, 16): pass",
        build="from torch import nn\n"
        "def build(vocab_size, seq_len):\n"
        "    model = nn.Sequential(nn.Embedding(vocab_size, 16), nn.Linear(16, vocab_size))\n"
        "    model.parameters = lambda: iter(())\n"
        "    return model\n"
        "def logits(model, x):\n"
        "    return model(x)\n",
    )
    result = run(lying)
    assert (result.status, result.parameters) == ("ok", 32 * 16 + 16 * 32 + 32), result.reason


@pytest.mark.parametrize("mode", ["auto", "off"])
def test_daemon_does_not_outlive_its_run(run, mode):
    daemon = candidate(
        """
        import os, time
        if os.fork() == 0:
            os.setsid()
            if os.fork() == 0:
                while True: time.sleep(0.01)
            os._exit(0)
        for b in batches(4, 16): pass
        """
    )
    before = descendants(os.getpid())
    assert run(daemon, sandbox_mode=mode).status == "ok"
    assert all_gone(descendants(os.getpid()) - before)


def test_huge_output_is_truncated_and_does_not_stall_training(run):
    loud = candidate(
        """
        print("begin sk-ant-api03-" + "A" * 30)
        for i in range(3000): print("x" * 1000)
        for b in batches(4, 16): pass
        print("the end")
        """
    )
    result = run(loud)
    assert result.status == "ok"
    assert result.log_head.startswith("begin [credential removed]")
    assert result.log_tail.endswith("the end\n")
    assert len(result.log_head) + len(result.log_tail) < 100_000


def test_loss_that_is_not_a_number_is_rejected(run):
    invalid = candidate(
        "c = batches._channel\nnext(iter(batches(4, 16)))\n"
        "c.send({'type': 'batch', 'batch_size': 4, 'seq_len': 16, 'loss': 'great'})\n"
        "import time; time.sleep(600)"
    )
    result = run(invalid)
    assert (result.status, "loss of 'great'" in result.reason) == ("crash", True)


PARTS = ["forward_ms", "head_and_loss_ms", "backward_ms", "optimizer_ms"]

WAITS = """
import time
def wait(seconds):
    end = time.process_time() + seconds
    while time.process_time() < end:
        pass
"""


def test_cpu_time_of_a_step_is_reported_by_part(run):
    source = WAITS + HONEST.replace(
        "        optimizer.zero_grad()", "        wait(0.03)\n        optimizer.zero_grad()"
    ).replace("        optimizer.step()", "        optimizer.step()\n        wait(0.01)")
    result = run(source, budget="1280tok")
    assert result.status == "ok"
    parts = {name: result.metrics[name] for name in PARTS}
    assert parts["head_and_loss_ms"] >= 30
    assert parts["optimizer_ms"] >= 10
    # self-reported, but no more than what was measured from outside
    assert sum(parts.values()) <= 1000 * result.cpu_seconds / (result.steps - 2)


def test_parts_of_a_step_do_not_change_the_training(run):
    """A tied head, copies and pickles of the model, and two backward passes a step."""
    body = """
    import copy, io, torch
    from torch.nn import functional as F
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for x, y, progress in batches(8, 16):
        shadow = copy.deepcopy(model)
        torch.save(model, io.BytesIO())
        for half in (slice(4), slice(4, 8)):
            hidden = model[0](x[half])
            loss = F.cross_entropy((hidden @ model[1].weight.T).flatten(0, 1), y[half].flatten())
            loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    """
    result = run(candidate(body), budget="1280tok")
    assert result.status == "ok"
    assert "head_and_loss_ms" not in result.metrics  # the head is never called
    assert result.metrics["forward_ms"] > 0
    assert result.metrics["backward_ms"] > 0


def test_training_without_a_backward_pass_has_no_parts(run):
    result = run(candidate("for x, y, progress in batches(8, 16): model(x)"))
    assert result.status == "ok"
    assert not set(PARTS) & set(result.metrics)


def test_an_error_in_logits_names_its_line_and_the_shape(run):
    source = HONEST.replace(
        "    return model(x)\n", "    assert x.shape[1] > 3, 'a row is short'\n    return model(x)\n"
    )
    result = run(source, purpose=Purpose.SMOKE)
    line = source.splitlines().index("    assert x.shape[1] > 3, 'a row is short'") + 1
    assert result.status == "crash"
    pattern = (
        rf"logits\(\) raised an error: AssertionError: a row is short \(train.py, line {line}\) "
        r"with x of shape \(\d, [23]\)"
    )
    assert re.fullmatch(pattern, result.reason), result.reason


def test_only_finite_metrics_with_valid_names_are_kept(run):
    reporter = candidate(
        """
        import os, json, time
        import safetensors.torch
        for b in batches(4, 16): pass
        safetensors.torch.save_model(model, "checkpoint.safetensors")
        batches._channel.send({"type": "done", "metrics": {
            "good": 1.5, "bad name": 1, "text": "x", "flag": True, "big": 10**400}})
        time.sleep(600)
        """
    )
    result = run(reporter)
    assert result.status == "ok"
    assert result.metrics == {"good": 1.5}


def test_self_reported_memory_is_ignored_on_a_cpu(run):
    claim = candidate(
        """
        import time
        import safetensors.torch
        for b in batches(4, 16): pass
        safetensors.torch.save_model(model, "checkpoint.safetensors")
        batches._channel.send({"type": "done", "metrics": {"device_memory_bytes": 1}})
        time.sleep(600)
        """
    )
    result = run(claim)
    assert result.status == "ok", result.reason
    assert result.peak_memory_bytes > 1 << 20


def test_model_that_reads_later_tokens_is_a_cheat(run):
    peeking = HONEST.replace(
        "return model(x)\n", "z = model(x); return z + z.mean(1, keepdim=True)\n"
    )
    assert peeking.count("z.mean") == 1
    result = run(peeking)
    assert result.status == "cheat"
    assert result.score is None


def test_model_that_cannot_be_scored_is_a_crash(run):
    result = run(HONEST.replace("def logits(model, x):", "def logits(model, x):\n    1 / 0"))
    assert (result.status, "logits()" in result.reason) == ("crash", True)


def test_endless_logits_are_a_timeout(run):
    cheat = HONEST.replace(
        "def logits(model, x):", "def logits(model, x):\n    while not x.requires_grad: pass"
    )
    result = run(cheat, scoring_cpu_limit_s=1.0)
    assert (result.status, "CPU" in result.reason) == ("timeout", True)


def test_smoke_run_takes_two_steps_and_one_scored_batch(run):
    result = run(purpose=Purpose.SMOKE, budget="equal:900ktok")
    assert (result.status, result.steps, result.score_kind) == ("ok", 2, "unverified")
    assert result.losses is None


def test_missing_data_set_is_an_infrastructure_failure(run, tmp_path):
    result = run(data=tmp_path / "nowhere")
    assert (result.status, "prepare.py" in result.reason) == ("infra", True)


def test_equal_budget_without_a_baseline_is_an_infrastructure_failure(run):
    result = run(budget="equal:4ktok", reference_files=None)
    assert (result.status, "baseline" in result.reason) == ("infra", True)


def test_broken_baseline_is_an_infrastructure_failure(run):
    broken = {"train.py": candidate("1 / 0").encode()}
    result = run(budget="equal:4ktok", reference_files=broken)
    assert (result.status, "ZeroDivisionError" in result.reason) == ("infra", True)


def test_files_outside_of_the_copy_are_rejected(launcher, data, tmp_path):
    spec = replace(make_spec(data), files={"../train.py": b""})
    assert execute(spec, launcher, tmp_path).status == "infra"
    assert not (tmp_path / "train.py").exists()


@pytest.mark.slow
def test_killed_forkserver_is_an_infrastructure_failure_and_the_next_run_works(run, launcher):
    forkserver = launcher._server._process.pid

    def kill_forkserver(progress):
        if progress.work > 3:
            os.kill(forkserver, signal.SIGKILL)

    endless = candidate("import time\nfor b in batches(1, 1): time.sleep(0.05)")
    result = run(endless, budget="600s", on_progress=kill_forkserver)
    assert result.status == "infra"
    assert "forkserver" in result.reason
    assert run().status == "ok"


def test_progress_covers_every_phase_and_should_stop_interrupts(run):
    seen = []
    result = run(on_progress=seen.append)
    assert result.status == "ok"
    assert [p.phase for p in seen if p.phase != "start"][-1] == "audit"
    assert {"train", "score", "audit"} <= {p.phase for p in seen}
    assert all(0 <= p.fraction <= 1 for p in seen)

    endless = candidate("import time\nfor b in batches(1, 1): time.sleep(0.05)")
    watched = []
    result = run(
        endless, budget="600s", on_progress=watched.append,
        should_stop=lambda: any(p.phase == "train" and p.work > 3 for p in watched),
    )  # fmt: skip
    assert (result.status, result.reason) == ("interrupted", "stopped from outside")


def test_keyboard_interrupt_kills_the_candidate_and_propagates(run):
    before = descendants(os.getpid())

    def interrupt(progress):
        if progress.work > 3:
            raise KeyboardInterrupt

    endless = candidate("import time\nfor b in batches(1, 1): time.sleep(0.05)")
    with pytest.raises(KeyboardInterrupt):
        run(endless, budget="600s", on_progress=interrupt)
    assert all_gone(descendants(os.getpid()) - before)


def test_equal_budget_runs_the_reference_and_keeps_it_for_later_runs(run, launcher):
    result = run(budget="equal:30ktok")
    clock = result.evidence["clock"]
    assert result.status == "ok"
    assert clock["reference_bursts"] >= 1
    assert clock["equivalent_tokens"] == pytest.approx(30_000, rel=0.2)
    kept = launcher._kept[1]
    assert run(budget="equal:30ktok", seed=9).status == "ok"
    assert launcher._kept[1] is kept


def backwards(passes: int) -> str:
    """Return HONEST with this many backward passes per step."""
    return HONEST.replace(
        "        loss.backward()\n",
        f"        for _ in range({passes}): loss.backward(retain_graph=True)\n",
    )


@pytest.mark.slow
def test_equal_budget_gives_slower_code_fewer_tokens(run):
    """Compare one and four times the baseline's backward passes.

    Steps take milliseconds, so that requesting a batch does not dominate their cost; the budget
    holds several bursts of the reference, of which one may be an outlier.
    """
    baseline = backwards(50)
    same, slow = (
        run(text, budget="equal:120ktok", reference_files={"train.py": baseline.encode()})
        for text in (baseline, backwards(200))
    )
    assert (same.reason, slow.reason) == ("", "")
    assert same.evidence["clock"]["reference_bursts"] >= 2
    assert same.work == pytest.approx(120_000, rel=0.35)
    assert slow.work < 0.5 * same.work


def test_scoring_can_be_interrupted(run):
    endless = HONEST.replace("def logits(model, x):", "def logits(model, x):\n    while True: pass")
    watched = []
    result = run(
        endless, on_progress=watched.append,
        should_stop=lambda: any(p.phase == "score" and p.elapsed_s >= 0 for p in watched),
    )  # fmt: skip
    assert result.status == "interrupted"


def test_each_scoring_process_has_its_own_temporary_folder(run, tmp_path):
    leaving = HONEST.replace(
        "def logits(model, x):",
        "def logits(model, x):\n"
        "    import os\n"
        "    if first: open('left', 'x').close()\n"
        "    globals()['first'] = False",
    )
    result = run(leaving + "\nfirst = True\n")
    assert result.reason == ""
    assert {path.name for path in (tmp_path / "run-1").iterdir()} == {
        "copy",
        "checkpoint.safetensors",
        "losses.f32",
    }


def test_smoke_run_may_start_and_save_as_slowly_as_a_run_may(run):
    """A larger model than the baseline's exceeds its allowances, which the budget then pays for."""
    slow = (
        "import time\n"
        "def spend(seconds):\n"
        "    until = time.process_time() + seconds\n"
        "    while time.process_time() < until: pass\n"
    )
    source = slow + candidate("for b in batches(8, 8): pass\nspend(0.5)")
    tight = Allowances(start_cpu_s=0.01, save_cpu_s=0.01, train_cpu_s=20.0)
    result = run(source, purpose=Purpose.SMOKE, budget="equal:900ktok", allowances=tight)
    assert (result.status, result.reason) == ("ok", "")
