"""Files are replaced in one step."""

from __future__ import annotations

import resource
from pathlib import Path

import pytest

from pytest_autoresearch.core.files import write_atomic


def test_atomic_write_keeps_a_device_file(tmp_path: Path) -> None:
    place = tmp_path / "log"
    place.symlink_to("/dev/null")
    write_atomic(place, "x")
    assert place.is_symlink()


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "table.tsv"
    write_atomic(path, "old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))
    try:
        with pytest.raises(OSError, match="File too large"):
            write_atomic(path, "x" * 2000)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
