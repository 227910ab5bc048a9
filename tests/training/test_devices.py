"""Devices: memory limits of this machine and the memory of a GPU."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from pytest_autoresearch.training import devices
from pytest_autoresearch.training.devices import (
    GPU_MEMORY_SHARE,
    GpuMemory,
    gpu_memory,
    visible_gpus,
)

MIB = 1 << 20


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/system.slice/job.service", "system.slice/job.service/memory.max"),
        ("0::/user/job/step", "user/memory.max"),
        ("4:cpu,memory:/slurm/job_7", "memory/slurm/job_7/memory.limit_in_bytes"),
        ("0::/", "memory.max"),
    ],
)
def test_memory_is_limited_by_any_parent_control_group(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, own: str, file: str
) -> None:
    monkeypatch.setattr(devices, "GROUPS", tmp_path)
    monkeypatch.setattr(devices, "OWN_GROUPS", tmp_path / "own")
    (tmp_path / "own").write_text(f"7:pids:/else\n{own}\n")
    whole = devices.memory_bytes()
    assert whole > 100 * MIB
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / file).write_text(f"{100 * MIB}\n")
    assert devices.memory_bytes() == 100 * MIB
    (tmp_path / file).write_text("max\n")
    assert devices.memory_bytes() == whole


def test_gpu_is_too_full_above_nine_tenths() -> None:
    assert not GpuMemory(int(GPU_MEMORY_SHARE * 1000), 1000).too_full
    assert GpuMemory(int(GPU_MEMORY_SHARE * 1000) + 1, 1000).too_full


@pytest.mark.skipif(bool(visible_gpus()), reason="this machine has a GPU")
def test_gpu_memory_is_none_without_a_gpu() -> None:
    assert gpu_memory() is None
    assert gpu_memory("GPU-00000000-0000-0000-0000-000000000000") is None


def test_gpu_memory_is_none_without_nvml(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gpu_memory() is None


@pytest.mark.skipif(not visible_gpus(), reason="no GPU here")
def test_gpu_memory_is_read() -> None:
    memory = gpu_memory()
    assert memory is not None
    assert 0 <= memory.used <= memory.total
