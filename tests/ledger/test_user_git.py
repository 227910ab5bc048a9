"""Repositories as users have them: each works, or is refused before anything is spent."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from support.project import Project, git

from pytest_autoresearch.ledger.git import IDENTITY, Repository, RepositoryError
from pytest_autoresearch.training.context import write_files

OPTIONS = ("--iterations=1", "--autoresearch-confirm=0", "--autoresearch-calibrate=2")


def works(project: Project) -> None:
    project.propose(0.5)
    result = project.run(*OPTIONS)
    assert result.ret == 0, result.stdout.str() + result.stderr.str()
    assert project.verdicts() == ["keep"]


def refused(project: Project, says: str) -> None:
    project.propose(0.5)
    result = project.run(*OPTIONS)
    assert result.ret == pytest.ExitCode.USAGE_ERROR
    result.stderr.fnmatch_lines([f"*{says}*"])
    assert not (project.path / ".autoresearch/main").exists()


def test_autocrlf(project: Project) -> None:
    git(project.path, "config", "core.autocrlf", "true")
    assert git(project.path, "status", "--porcelain") == ""
    works(project)
    assert git(project.path, "diff", "--numstat", "main", "autoresearch/main") == (
        "1\t0\ttrain.py"
    )  # fmt: skip


def test_sha_256(project: Project) -> None:
    shutil.rmtree(project.path / ".git")
    git(project.path, "init", "-q", "-b", "main", "--object-format=sha256")
    project.commit()
    works(project)
    assert len(git(project.path, "rev-parse", "autoresearch/main")) == 64


def test_a_byte_order_mark_is_kept(project: Project) -> None:
    path = project.path / "train.py"
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    project.commit("mark")
    works(project)
    assert git(project.path, "diff", "--numstat", "main", "autoresearch/main") == (
        "1\t0\ttrain.py"
    )  # fmt: skip


def test_another_encoding(project: Project) -> None:
    path = project.path / "train.py"
    path.write_bytes(b"# -*- coding: latin-1 -*-\n# \xe9\n" + path.read_bytes())
    project.commit("latin")
    refused(project, "train.py is not UTF-8 text; save it as UTF-8")


def test_a_link_as_editable_file(project: Project) -> None:
    (project.path / "train.py").rename(project.path / "real.py")
    (project.path / "train.py").symlink_to("real.py")
    project.commit("link")
    refused(project, "train.py is a symbolic link in git; commit the file itself*Experiment(files=")


def test_a_branch_named_autoresearch(project: Project) -> None:
    git(project.path, "branch", "autoresearch")
    refused(project, "branch autoresearch is in the way*git branch -m autoresearch autoresearch-old")


def test_a_branch_below_the_campaigns(project: Project) -> None:
    git(project.path, "branch", "autoresearch/main/x")
    refused(project, "branch autoresearch/main/x is in the way of branch autoresearch/main; rename")


def test_brackets_in_the_path(project: Project) -> None:
    folder = project.path / "night [2]"
    folder.mkdir()
    for name in ("train.py", "program.md", "conftest.py"):
        shutil.copy(project.path / name, folder)
    project.propose(0.5)
    shutil.move(project.path / "ideas", folder)
    project.commit("below")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--autoresearch", *OPTIONS, f"--rootdir={folder}",
         "--autoresearch-proposer=replay:ideas", "-p", "no:cacheprovider"],
        cwd=folder, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


# ---------------------------------------------------------------------- without a campaign


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "train.py").write_text("A = 1\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


def author(root: Path) -> str:
    repository = Repository.open(root)
    text = repository.describe("s", "", {})
    sha = repository.commit(repository.head(), {"train.py": "A = 2\n"}, text, "refs/x/y")
    return git(root, "log", "-1", "--format=%an <%ae>", sha)


def test_the_author_is_whom_git_knows(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GIT_CONFIG_GLOBAL", "GIT_CONFIG_SYSTEM"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.delenv("HOME")
    assert author(root) == IDENTITY
    git(root, "config", "user.name", "Ünal")
    git(root, "config", "user.email", "u@example.org")
    assert author(root) == "Ünal <u@example.org>"
    monkeypatch.setenv("GIT_AUTHOR_NAME", "A")
    assert author(root) == "A <u@example.org>"


def test_a_repository_of_another_owner(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    with pytest.raises(RepositoryError, match=r"dubious ownership.*safe\.directory"):
        Repository.open(root)


def test_settings_in_the_environment_stay(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_TEST_ASSUME_DIFFERENT_OWNER", "1")
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "safe.directory")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "*")
    assert Repository.open(root).branch() == "main"


def test_places_in_the_environment_are_ignored(
    root: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path_factory.mktemp("other")
    git(other, "init", "-q")
    monkeypatch.setenv("GIT_WORK_TREE", str(other))
    monkeypatch.setenv("GIT_INDEX_FILE", str(other / "none"))
    repository = Repository.open(root)
    repository.check_files(["train.py"])
    (root / "train.py").write_text("A = 3\n")
    assert repository.changes() == ["train.py"]


def test_exports_have_modes_and_links(root: Path, tmp_path: Path) -> None:
    (root / "tool").write_bytes(b"\x7fELF")
    (root / "tool").chmod(0o755)
    (root / "data").mkdir()
    (root / "data/one.txt").write_text("1")
    (root / "link").symlink_to("data/one.txt")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "more")
    repository = Repository.open(root)
    export = repository.export(repository.head())
    copy = tmp_path / "copy"
    write_files(export.files, copy, export.modes)
    assert os.access(copy / "tool", os.X_OK)
    assert not os.access(copy / "data/one.txt", os.X_OK)
    assert os.readlink(copy / "link") == "data/one.txt"
    assert (copy / "link").read_text() == "1"


def test_unusual_names_are_committed(root: Path) -> None:
    names = ['a "quoted" name.py', "back\\slash.py", "new\nline.py", "ünï [x].py"]
    for name in names:
        (root / name).write_text("A = 1\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "names")
    repository = Repository.open(root)
    files = dict.fromkeys(names, "A = 2\n")
    text = repository.describe("s", "", {})
    sha = repository.commit(repository.head(), files, text, "refs/x/y")
    assert {repository.export(sha).files[name] for name in names} == {b"A = 2\n"}
    changed = git(root, "diff", "--numstat", "-z", "HEAD", sha).split("\0")
    assert sorted(line.split("\t", 2)[2] for line in changed if line) == sorted(names)
