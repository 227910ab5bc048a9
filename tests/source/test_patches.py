"""Diffs: what ``git apply`` takes is taken, what it would only guess is refused."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from pytest_autoresearch.core.proposal import EditError
from pytest_autoresearch.source.blocks import Parsed, parse
from pytest_autoresearch.source.edits import apply

BEFORE = "import math\n\nLR = 0.04\nDEPTH = 4\nWIDTH = 64\n\n\ndef a():\n    return LR\n"
TWICE = BEFORE + "".join(f"\n\ndef f{i}():\n    x = 1\n    y = 2\n    return x\n" for i in range(4))
LAST = TWICE[: TWICE.rindex("x = 1")] + "x = 3" + TWICE[TWICE.rindex("x = 1") + 5 :]


@pytest.fixture
def diff(tmp_path: Path):
    """Return git's diff between two texts of ``f.py``, in any of its forms."""

    def run(*args: str) -> str:
        identity = ("-c", "user.name=A", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=0")
        command = ["git", *identity, *args]
        done = subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
        return done.stdout.decode()

    def make(before: str, after: str, *form: str, mode: int = 0o644) -> str:
        file = tmp_path / "f.py"
        run("init", "-q")
        file.write_bytes(before.encode())
        run("add", "f.py")
        run("commit", "-q", "-m", "base")
        file.write_bytes(after.encode())
        file.chmod(mode)
        if form[0] != "format-patch":
            return run(*form)
        run("commit", "-q", "-a", "-m", "double thé rate", "-m", "It arrives sooner:\n\n- or not")
        return run(*form, "--stdout", "-1")

    return make


FASTER = BEFORE.replace("0.04", "0.08")


@pytest.mark.parametrize(
    "form",
    [
        ("diff",), ("diff", "-U0"), ("diff", "-U1"), ("diff", "--no-prefix"), ("format-patch",),
        ("format-patch", "-U0"), ("diff", "--src-prefix=i/", "--dst-prefix=w/"),
    ],
    ids=" ".join,
)  # fmt: skip
@pytest.mark.parametrize(
    ("before", "after", "mode"),
    [
        (BEFORE, FASTER, 0o644),
        (BEFORE, FASTER, 0o755),
        (BEFORE.replace("\n", "\r\n"), FASTER.replace("\n", "\r\n"), 0o644),
        (BEFORE.rstrip(), FASTER.rstrip(), 0o644),
        (BEFORE.rstrip(), BEFORE.rstrip() + " + 1", 0o644),
        (BEFORE, BEFORE.replace("WIDTH = 64\n", "WIDTH = 64\nEXTRA = 2\n"), 0o644),
        (BEFORE, BEFORE.replace("DEPTH = 4\n", ""), 0o644),
        (TWICE, LAST, 0o644),
        (BEFORE, "#!python\n" + BEFORE + "# the end\n", 0o644),
    ],
    ids=["one", "mode", "crlf", "cut", "last", "insert", "delete", "twice", "ends"],
)
def test_what_git_writes_is_taken(diff, form, before: str, after: str, mode: int) -> None:
    files = {"f.py": before, "other.py": "LR = 0.04\n"}
    patch = diff(before, after, *form, mode=mode)
    found = parse(patch, files)
    assert apply(files, found.edits) == files | {"f.py": after}
    assert found.title == ("double thé rate" if form[0] == "format-patch" else "")


def test_times_and_prose_around_a_diff_are_ignored() -> None:
    text = (
        "Title: one\n\nSee:\n--- f.py\t2026-03-09 10:00:00 +0000\n+++ f.py\t2026-03-09 10:01:00\n"
        "@@ -3,2 +3,2 @@\n-LR = 0.04\n+LR = 0.08\n DEPTH = 4\nHypothesis: sooner\n"
    )
    found = parse(text, {"f.py": BEFORE})
    assert apply({"f.py": BEFORE}, found.edits) == {"f.py": FASTER}
    assert (found.title, found.hypothesis) == ("one", "sooner")


def test_the_line_number_of_a_stale_diff_is_not_trusted(diff) -> None:
    moved = TWICE.replace("import math\n", "import math\nimport sys\n")
    with pytest.raises(EditError, match="occurs 4 times"):
        apply({"f.py": moved}, parse(diff(TWICE, LAST, "diff", "-U0"), {"f.py": moved}).edits)
    inserted = BEFORE.replace("WIDTH = 64\n", "WIDTH = 64\nEXTRA = 2\n").replace("0.04", "0.08")
    with pytest.raises(EditError, match=r"only adds lines.*git diff -U3"):
        parse(diff(BEFORE, inserted, "diff", "-U0"), {"f.py": moved})


def test_a_miscounted_hunk_is_not_applied_in_part(diff) -> None:
    after = TWICE.replace("0.04", "0.08").replace("DEPTH = 4", "DEPTH = 8")
    patch = diff(TWICE, after, "diff")
    assert "@@ -1,7 +1,7 @@" in patch
    found: Parsed = parse(patch.replace("-1,7 +1,7", "-1,3 +1,3"), {"f.py": TWICE})
    assert apply({"f.py": TWICE}, found.edits) == {"f.py": after}


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        ("diff --git a/f.py b/g.py\nrename from f.py\nrename to g.py\n--- a/f.py\n+++ b/g.py\n"
         "@@ -3 +3 @@\n-LR = 0.04\n+LR = 0.08\n", "rename from f.py"),
        ("--- /dev/null\n+++ b/g.py\n@@ -0,0 +1 @@\n+LR = 0.08\n", "'g.py'"),
        ("diff --git a/l b/l\nnew file mode 120000\n--- /dev/null\n+++ b/l\n@@ -0,0 +1 @@\n"
         "+/etc/passwd\n\\ No newline at end of file\n", "new file mode 120000"),
        ("--- a/../f.py\n+++ b/../f.py\n@@ -3 +3 @@\n-LR = 0.04\n+LR = 0.08\n", "may not be"),
        ("--- a/f.py\n+++ /dev/null\n@@ -1 +0,0 @@\n-import math\n", "'dev/null' may not be"),
    ],
    ids=["renamed", "added", "link", "outside", "removed"],
)  # fmt: skip
def test_a_diff_of_other_files_is_refused(patch: str, message: str) -> None:
    files = {"f.py": BEFORE}
    with pytest.raises(EditError, match=message):
        apply(files, parse(patch, files).edits)
