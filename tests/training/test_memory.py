"""The memory that a trial took is what was measured of it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from support.runs import candidate, make_spec, shared_launcher, write_dataset

from pytest_autoresearch.training.run import execute

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="forks confined processes")


def test_on_a_cpu_nobody_says_himself_what_memory_he_took(tmp_path: Path) -> None:
    teller = candidate(
        """
        import time
        import safetensors.torch
        for b in batches(4, 16): pass
        safetensors.torch.save_model(model, "checkpoint.safetensors")
        batches._channel.send({"type": "done", "metrics": {"device_memory_bytes": 1}})
        time.sleep(600)
        """
    )
    data = write_dataset(tmp_path / "cycle")
    result = execute(make_spec(data, teller), shared_launcher(), tmp_path / "runs")
    assert result.status == "ok", result.reason
    assert result.peak_memory_bytes > 1 << 20
