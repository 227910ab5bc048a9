"""What of this machine trials may use."""

from __future__ import annotations

from pathlib import Path

import pytest

from pytest_autoresearch.training import devices

MIB = 1 << 20


@pytest.mark.parametrize(
    ("own", "file"),
    [
        ("0::/system.slice/night.service", "system.slice/night.service/memory.max"),
        ("0::/user/job/step", "user/memory.max"),
        ("4:cpu,memory:/slurm/job_7", "memory/slurm/job_7/memory.limit_in_bytes"),
        ("0::/", "memory.max"),
    ],
)
def test_a_bound_on_any_group_that_holds_us_counts(
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
