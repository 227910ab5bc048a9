"""A research project in miniature: a real git repository, a real command, milliseconds a run."""

from __future__ import annotations

import os
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import pytest

TRAIN = """\
import os, sys, time
LR = 0.5
SLEEP = 0.0
SCORE = 1.0
# ideas go here
seed = int(os.environ["AUTORESEARCH_SEED"])
time.sleep(SLEEP)
print("step 1 loss: 2.5")
print("METRIC:", SCORE + (seed % 3) * 0.0001)
"""


CONFTEST = """\
import sys
import pytest
from pytest_autoresearch import Experiment, Metric

@pytest.fixture(scope="session")
def experiment():
    return Experiment(
        context=(), run=(sys.executable, "train.py"), metric=Metric({name!r}, {direction!r})
    )
"""


def git(folder: Path, *args: str) -> str:
    """Run git there and return what it prints."""
    done = subprocess.run(
        ["git", "-c", "user.name=u", "-c", "user.email=u@x", *args],
        cwd=folder, check=True, capture_output=True, text=True,
    )  # fmt: skip
    return done.stdout.strip()


class Project:
    """One such project, and how to run a campaign in it."""

    def __init__(self, pytester: pytest.Pytester) -> None:
        self.pytester = pytester
        self.path = pytester.path

    def write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def commit(self, message: str = "start") -> None:
        git(self.path, "add", "-A")
        git(self.path, "commit", "-qm", message)

    def propose(self, *scores: object) -> None:
        """Record proposals outside the project: each sets the score that its run will print."""
        for i, score in enumerate(scores, 1):
            text = str(score)
            if "\n" not in text:
                text = (
                    f"Title: score {score}\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
                    f"SCORE = {score}\n# ideas go here\n>>>>>>> REPLACE\n"
                )
            self.write(f"ideas/{i:03d}.txt", text)

    def run(self, *args: str, timeout: float = 120) -> pytest.RunResult:
        """Run ``pytest --autoresearch`` on the recorded proposals in a process of its own."""
        return self.pytester.runpytest_subprocess(
            "--autoresearch",
            "--autoresearch-proposer=replay:ideas",
            "-p", "no:cacheprovider", "-p", "no:hypothesispytest",
            *args,
            timeout=timeout,
        )  # fmt: skip

    def command(self, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
        """Run ``python -m pytest_autoresearch`` there."""
        return subprocess.run(
            [sys.executable, "-m", "pytest_autoresearch", *args],
            cwd=self.path, capture_output=True, text=True, timeout=120, env={**os.environ, **env},
        )  # fmt: skip

    def ledger(self, tag: str = "main"):
        from pytest_autoresearch.ledger.store import Ledger

        return Ledger.open(self.path, tag)

    def verdicts(self, tag: str = "main") -> list[str]:
        return [s.verdict or s.state for s in self.ledger(tag).attempts() if s.kind != "baseline"]

    def cases(self, name: str = "log.xml") -> dict[str, ElementTree.Element]:
        root = ElementTree.parse(self.path / name).getroot()
        return {str(case.get("name")): case for case in root.iter("testcase")}


PYTHON = sys.executable
