"""Files are replaced in one step; what killed processes leave is removed."""

from __future__ import annotations

import resource
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from pytest_autoresearch.core.files import (
    remove_tree,
    replacing,
    sweep,
    temporary_folder,
    write_atomic,
)

KILLED = """
import os, signal, sys
from pathlib import Path
from pytest_autoresearch.core.files import replacing, temporary_folder
with temporary_folder("agent") as folder, replacing(Path(sys.argv[1])) as file:
    (folder / "home").mkdir()
    os.kill(os.getpid(), signal.SIGKILL)
"""


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


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    state = tmp_path / "project/.autoresearch"
    state.mkdir(parents=True)
    (state / ".gitignore").write_text("*\n")
    (tmp_path / "tmp").mkdir()
    monkeypatch.setenv("TMPDIR", str(tmp_path / "tmp"))
    monkeypatch.setattr(tempfile, "tempdir", None)
    return tmp_path / "project"


@pytest.mark.parametrize("name", ["results.tsv", "deep/log.xml", ".autoresearch/main/ideas.md"])
def test_temporary_files_of_a_project_lie_in_its_ignored_folder(project: Path, name: str) -> None:
    path = project / name
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as file:
        file.write(b"x")
        assert list(path.parent.iterdir()) == [p for p in path.parent.iterdir() if p.is_dir()]
        [temporary] = (project / ".autoresearch/tmp").iterdir()
        assert temporary.name.startswith(path.name)
    assert path.read_bytes() == b"x"
    assert list((project / ".autoresearch/tmp").iterdir()) == []


def test_a_tree_of_any_depth_without_permissions_is_removed(tmp_path: Path) -> None:
    deep = tmp_path / "deep"
    script = "import os\nfor _ in range(1100): os.mkdir('d'); os.chdir('d')\nos.mkdir('x', 0)"
    deep.mkdir()
    subprocess.run([sys.executable, "-c", script], cwd=deep, check=True)
    remove_tree(deep)
    remove_tree(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_a_write_removes_what_a_killed_one_left_of_the_same_file(project: Path) -> None:
    folder = project.parent / "elsewhere"
    folder.mkdir()
    subprocess.run([sys.executable, "-c", KILLED, str(folder / "log[1].xml")], check=False)
    assert len(list(folder.iterdir())) == 1
    (folder / ".other.xml.x.tmp").touch()
    write_atomic(folder / "log[1].xml", "whole")
    assert sorted(p.name for p in folder.iterdir()) == [".other.xml.x.tmp", "log[1].xml"]


def test_files_of_killed_processes_are_removed_and_no_others(project: Path) -> None:
    subprocess.run([sys.executable, "-c", KILLED, str(project / "results.tsv")], check=False)
    state, folder = project / ".autoresearch/tmp", Path(tempfile.gettempdir())
    assert len(list(state.iterdir())) == len(list(folder.iterdir())) == 1
    (folder / "autoresearch-mine").mkdir()
    (state / "mine.txt").touch()
    with temporary_folder("agent") as used, replacing(project / "log.xml") as file:
        sweep(project)
        assert {p.name for p in folder.iterdir()} == {"autoresearch-mine", used.name}
        file.write(b"x")
    assert [p.name for p in state.iterdir()] == ["mine.txt"]
    assert (project / "log.xml").read_bytes() == b"x"
