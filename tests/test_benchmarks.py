"""Benchmarks whose figures decide something run, and continue after an interruption."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent


@pytest.mark.slow
def test_real_campaigns_of_the_searches_are_compared_once(tmp_path: Path) -> None:
    command = [
        sys.executable, ROOT / "benchmarks/research.py", "--quick", "--attempts", "1",
        "--arms", "gp", "--confirm", "0", "--folder", tmp_path,
    ]  # fmt: skip
    texts = []
    for _ in range(2):
        done = subprocess.run(command, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        texts.append(done.stdout)
    result = json.loads(texts[0].splitlines()[-1])
    assert result["confirmed_gain"].keys() == result["arms"].keys() == {"gp"}
    for arm in result["arms"].values():
        assert arm["attempts"] == 1
        assert arm["low"] <= arm["gain"] <= arm["high"]
        assert arm["device_hours"] > 0
    assert texts[1] == texts[0]
    assert len((tmp_path / "research.jsonl").read_text().splitlines()) == 1
