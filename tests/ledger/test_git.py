"""Git as a projection: real repositories, the user's side of them untouched."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest
from support.project import git

from pytest_autoresearch.ledger.git import Repository, RepositoryError


@pytest.fixture
def root(tmp_path: Path) -> Path:
    git(tmp_path, "init", "-q", "-b", "main")
    (tmp_path / "train.py").write_text("A = 1\n")
    (tmp_path / "run.sh").write_text("#!/bin/sh\n")
    (tmp_path / "run.sh").chmod(0o755)
    (tmp_path / "dos.txt").write_bytes(b"a\r\nb\r\n")
    (tmp_path / "grüße.py").write_text("x = 'ä'\n")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    return tmp_path


REF = "refs/autoresearch/t/mutation-0001"


def commit(repository: Repository, files: dict[str, str], ref: str = REF) -> str:
    text = repository.describe(
        "a  title\nof two lines", "why", {"Score": "0.5", "Attempt": "mutation-0001"}
    )
    return repository.commit(repository.head(), files, text, ref)


def keep(repository: Repository, **files: str) -> str:
    return commit(repository, {name.replace("_", "."): text for name, text in files.items()})


def test_a_commit_holds_the_files_and_has_a_ref(root: Path) -> None:
    repository = Repository.open(root)
    sha = keep(repository, train_py="A = 2\n")
    assert repository.read(sha, ["train.py"]) == {"train.py": "A = 2\n"}
    message = git(root, "log", "-1", "--format=%B", sha).splitlines()
    assert message[0] == "a title of two lines"
    assert message[-2:] == ["Autoresearch-Score: 0.5", "Autoresearch-Attempt: mutation-0001"]
    assert git(root, "rev-parse", REF) == sha
    assert git(root, "status", "--porcelain") == ""
    assert git(root, "diff", "--name-only", "HEAD", sha) == "train.py"


def test_modes_line_endings_and_names_are_kept(root: Path) -> None:
    repository = Repository.open(root)
    files = {"run.sh": "#!/bin/sh\nexit\n", "dos.txt": "c\r\n", "grüße.py": "x = 'ß'\n"}
    sha = commit(repository, files)
    assert git(root, "ls-tree", sha, "run.sh").startswith("100755")
    assert repository.read_bytes(sha, ["dos.txt"]) == {"dos.txt": b"c\r\n"}
    assert repository.export(sha).files["grüße.py"].decode() == "x = 'ß'\n"


def test_a_project_below_the_top_level(root: Path) -> None:
    below = root / "research"
    below.mkdir()
    (below / "train.py").write_text("B = 1\n")
    git(root, "add", "-A")
    git(root, "commit", "-qm", "below")
    repository = Repository.open(below)
    sha = keep(repository, train_py="B = 2\n")
    assert git(root, "show", f"{sha}:research/train.py") == "B = 2"
    assert git(root, "show", f"{sha}:train.py") == "A = 1"
    assert repository.changes(["train.py"]) == []


def test_changes_sees_edits_and_deletions(root: Path) -> None:
    repository = Repository.open(root)
    assert repository.changes(["train.py", "dos.txt"]) == []
    (root / "train.py").write_text("A = 3\n")
    assert repository.changes(["train.py", "dos.txt"]) == ["train.py"]


def test_without_an_identity_a_fallback_signs(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    empty = root / "home"
    empty.mkdir()
    monkeypatch.setenv("HOME", str(empty))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(empty))
    monkeypatch.setenv("GIT_CONFIG_GLOBAL", os.devnull)
    monkeypatch.setenv("GIT_CONFIG_SYSTEM", os.devnull)
    sha = keep(Repository.open(root), train_py="A = 2\n")
    assert git(root, "log", "-1", "--format=%an", sha) == "pytest-autoresearch"


def test_refs_follow_and_projecting_again_heals_them(root: Path) -> None:
    repository = Repository.open(root)
    sha = keep(repository, train_py="A = 2\n")
    assert repository.project("t", [sha], {"mutation-0001": sha}) == []
    assert git(root, "rev-parse", "autoresearch/t", REF).split() == [sha, sha]
    git(root, "update-ref", "-d", "refs/heads/autoresearch/t")
    git(root, "update-ref", "-d", REF)
    assert repository.project("t", [sha], {"mutation-0001": sha}) == []
    assert git(root, "rev-parse", "autoresearch/t", REF).split() == [sha, sha]


def test_the_branch_must_be_ours_and_nowhere_checked_out(root: Path, tmp_path: Path) -> None:
    repository = Repository.open(root)
    repository.check_branch("t", [])
    sha = keep(repository, train_py="A = 2\n")
    repository.project("t", [sha], {})
    repository.check_branch("t", [sha])
    with pytest.raises(RepositoryError, match="does not belong to this campaign; rename it"):
        repository.check_branch("t", ["0" * 40])
    git(root, "worktree", "add", "-q", str(tmp_path / "elsewhere"), "autoresearch/t")
    with pytest.raises(RepositoryError, match="is checked out"):
        repository.check_branch("t", [sha])


def test_a_missing_file_names_the_remedy(root: Path) -> None:
    with pytest.raises(RepositoryError, match=r"new.py is not in commit .*git add new.py"):
        Repository.open(root).read("HEAD", ["new.py"])


def test_a_bare_repository_is_refused(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", "--bare", str(tmp_path)], check=True)
    with pytest.raises(RepositoryError, match="bare"):
        Repository.open(tmp_path)


def test_an_export_of_many_files_needs_two_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    git(tmp_path, "init", "-q")
    for n in range(500):
        (tmp_path / f"file {n}.txt").write_text(str(n))
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "many")
    repository = Repository.open(tmp_path)
    head, calls = repository.head(), []
    run = Repository._git_bytes
    monkeypatch.setattr(
        Repository, "_git_bytes", lambda self, *a, **k: calls.append(a) or run(self, *a, **k)
    )
    export = repository.export(head)
    assert export.files["file 7.txt"] == b"7"
    assert len(export.files) == 500
    assert repository.export(head) is export
    assert len(calls) == 2
