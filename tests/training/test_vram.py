"""The GPU's memory, read from outside; without a GPU there is nothing to watch, and no error."""

from __future__ import annotations

import sys

import pytest

from pytest_autoresearch.training import vram
from pytest_autoresearch.training.devices import visible_gpus
from pytest_autoresearch.training.vram import SHARE, Vram


def test_nine_tenths_are_the_bound() -> None:
    assert not Vram(int(SHARE * 1000), 1000).too_full
    assert Vram(int(SHARE * 1000) + 1, 1000).too_full


@pytest.mark.skipif(bool(visible_gpus()), reason="this machine has a GPU")
def test_without_a_gpu_nothing_is_read() -> None:
    assert vram.read() is None
    assert vram.read("GPU-00000000-0000-0000-0000-000000000000") is None


def test_without_the_library_nothing_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert vram.read() is None


@pytest.mark.skipif(not visible_gpus(), reason="no GPU here")
def test_a_gpu_tells_what_is_used() -> None:
    seen = vram.read()
    assert seen is not None
    assert 0 <= seen.used <= seen.total
