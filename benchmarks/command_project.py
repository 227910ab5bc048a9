"""A project of a command experiment that takes milliseconds, for benchmarks of the bookkeeping."""

from __future__ import annotations

import subprocess
from collections.abc import Iterable
from pathlib import Path

TRAIN = """\
import os, time
SCORE = 1.0
# ideas go here
time.sleep({seconds})
print("val_bpb:", SCORE + int(os.environ.get("AUTORESEARCH_SEED", 0)) % 3 * 0.0001)
"""
CONFTEST = """\
import sys
import pytest
from pytest_autoresearch import Experiment, Metric

@pytest.fixture(scope="session")
def experiment():
    return Experiment(context=(), run=(sys.executable, "train.py"), metric=Metric())
"""
IDEA = """\
Title: score {score}

train.py
<<<<<<< SEARCH
# ideas go here
=======
SCORE = {score}
# ideas go here
>>>>>>> REPLACE
"""


def git(folder: Path, *args: str) -> str:
    """Run git in a folder; return its output."""
    command = ["git", "-c", "user.name=b", "-c", "user.email=b@x", *args]
    return subprocess.run(command, cwd=folder, check=True, capture_output=True, text=True).stdout


def make_project(folder: Path, scores: Iterable[float], seconds: float = 0.0) -> None:
    """Write and commit the project; `ideas` holds a proposal for each score."""
    files = {
        "train.py": TRAIN.format(seconds=seconds),
        "conftest.py": CONFTEST,
        "program.md": "# lower it\n",
        ".gitignore": ".autoresearch/\nideas/\n__pycache__/\n*.xml\nresults.tsv\n",
    }
    folder.mkdir(exist_ok=True)
    for name, text in files.items():
        (folder / name).write_text(text)
    (folder / "ideas").mkdir()
    for number, score in enumerate(scores):
        (folder / f"ideas/{number:04d}.txt").write_text(IDEA.format(score=score))
    git(folder, "init", "-q", "-b", "main")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "start")
