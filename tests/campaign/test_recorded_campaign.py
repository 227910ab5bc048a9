"""A recorded language model over a loopback server, judged by real training."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from support.project import git
from support.wire.recorded import RECORDINGS, Conversation, Recorded, dollars, outcome, read

from pytest_autoresearch.core.proposal import EditError
from pytest_autoresearch.ledger.spend import CostBudget
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.source.blocks import Parsed, parse
from pytest_autoresearch.source.checks import apply_checked, run_checks
from pytest_autoresearch.source.edits import apply
from pytest_autoresearch.source.fingerprint import fingerprint

ROOT = Path(__file__).resolve().parents[2]
ALL = read()
BY_NAME = {conversation.name: conversation for conversation in ALL}
SHIPPED = {"train.py": (ROOT / "train.py").read_text()}


def usable(files: dict[str, str], answer: dict) -> Parsed | None:
    """What the harness makes of an answer, or None where it asks for a repair."""
    try:
        parsed = parse(answer["text"], files)
        apply_checked(files, parsed.edits)
    except EditError:
        return None
    return parsed


def result(conversation: Conversation) -> dict[str, str]:
    """The files after its last answer."""
    parsed = usable(SHIPPED, conversation.answers[-1])
    assert parsed is not None
    return apply(SHIPPED, parsed.edits)


# ---------------------------------------------------------------- the recordings do not rot


def test_every_recording_is_used_once() -> None:
    assert len(ALL) >= 32
    assert len(BY_NAME) == len(ALL)
    scenario = (RECORDINGS / "campaign.yaml").read_text()
    for path in RECORDINGS.glob("*.md"):
        assert scenario.count(f"answer: {path.name}\n") == 1, path.name


@pytest.mark.parametrize("name", BY_NAME)
def test_recording_applies_to_the_shipped_file_only_as_it_declares(name: str) -> None:
    conversation = BY_NAME[name]
    *before, last = conversation.answers
    if conversation.outcome in ("refused", "invalid"):
        finished = [a for a in conversation.answers if not a.get("stop_reason")]
        assert all(usable(SHIPPED, answer) is None for answer in finished)
        return
    assert all(usable(SHIPPED, answer) is None for answer in before)
    parsed = usable(SHIPPED, last)
    assert parsed is not None
    assert parsed.title
    assert parsed.hypothesis
    assert all(note.ok for note in run_checks(SHIPPED, result(conversation)))
    if conversation.on:
        assert usable(result(BY_NAME[conversation.on]), before[0]) is not None


def test_only_declared_recordings_repeat_an_earlier_one() -> None:
    seen: set[str] = set()
    for conversation in ALL:
        if conversation.outcome in ("refused", "invalid"):
            continue
        mark = fingerprint(result(conversation))
        assert (mark in seen) == (conversation.outcome == "duplicate"), conversation.name
        seen.add(mark)


# ---------------------------------------------------------------- a campaign of them


@pytest.fixture
def wire() -> Iterator[type]:
    started: list[Recorded] = []

    def start(*names: str) -> Recorded:
        started.append(Recorded(read(names=names)))
        return started[-1]

    yield start
    for one in started:
        one.close()


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """The shipped experiment, with a small corpus prepared as any other."""
    for name in ("train.py", "prepare.py", "program.md", "conftest.py", "pyproject.toml"):
        shutil.copy(ROOT / name, tmp_path)
    (tmp_path / ".gitignore").write_text(".autoresearch/\n*.xml\nresults.tsv\n__pycache__/\n")
    git(tmp_path, "init", "-qb", "main")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "start")
    corpus = str(ROOT / "pytest_autoresearch")
    run(tmp_path, "prepare.py", "--corpus", corpus, "--out", ".autoresearch/data/stdlib")
    return tmp_path


def run(folder: Path, *args: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {name: value for name, value in os.environ.items() if "ANTHROPIC" not in name}
    return subprocess.run(
        [sys.executable, *args], cwd=folder, env=clean | {"OMP_NUM_THREADS": "1"} | env,
        capture_output=True, text=True, timeout=1800, check=False,
    )  # fmt: skip


def prompt_of(request: dict[str, Any]) -> str:
    parts = [*request["system"], *request["messages"][0]["content"]]
    return "\n".join(part["text"] for part in parts)


@pytest.mark.slow
def test_recorded_campaign_is_complete_and_its_costs_add_up(clone: Path, wire) -> None:
    server = wire(
        "halve-the-batch", "matrix-rate", "flash-attention", "refusal", "tight-softcap",
        "tight-softcap-again", "hostile-title",
    )  # fmt: skip
    done = run(
        clone, "-m", "pytest", "--autoresearch", "--iterations", "7", "--junitxml=log.xml",
        "--autoresearch-budget=10ktok", "--autoresearch-calibrate=2", "--autoresearch-confirm=0",
        "--autoresearch-control=0", "--autoresearch-parents=champion", "--autoresearch-judge=threshold",
        ANTHROPIC_API_KEY="x", ANTHROPIC_BASE_URL=server.url,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr

    ledger = Ledger.open(clone, "main")
    attempts = [attempt for attempt in ledger.attempts() if attempt.kind == "mutation"]
    expected = [conversation.outcome for conversation in server.conversations]
    assert server.asked == [conversation.name for conversation in server.conversations]
    assert [outcome(attempt.verdict, attempt.reason) for attempt in attempts] == expected
    assert [attempt.usage.requests for attempt in attempts] == [1, 2, 1, 1, 1, 1, 1]
    assert server.faults == 3
    assert all(attempt.state == "done" for attempt in attempts)

    owed = [sum(dollars(b) for b in server.bills if b.conversation == n) for n in server.asked]
    assert [attempt.usage.cost_usd for attempt in attempts] == pytest.approx(owed)
    assert CostBudget(ledger.path).spent() == pytest.approx(sum(owed))
    assert f"spent on proposals: ${sum(owed):.4f}" in done.stdout
    [suite] = ElementTree.parse(clone / "log.xml").getroot().iter("testsuite")
    costs = suite.findall("testcase/properties/property[@name='dollars']")
    assert sum(float(cost.get("value", "")) for cost in costs) == pytest.approx(sum(owed))
    total = suite.find("properties/property[@name='total_dollars']")
    assert total is not None
    assert total.get("value") == f"{sum(owed):.4f}"

    # the hostile title reaches nobody's terminal or browser as more than text
    assert "alert(1)" in done.stdout
    assert not {"\x1b", "\a", "\u202e"} & set(done.stdout)
    assert "<script>alert(1)" not in (clone / ".autoresearch/report.html").read_text()
    # the model is told what its attempts cost and what they learned
    sent = prompt_of(server.requests[-1])
    for pattern in (
        r"Data: a vocabulary of [\d,]+ tokens; rows of 64 tokens; [\d,]+ training tokens of \d\.\d\d "
        r"bytes on average; 10,000 of them are",
        r"Budget: each run gets 10,000 units of training data",
        r"Machine: .*, 1 thread a run; Python 3\.\d+\.\d+, torch 2",
        r"The champion, .*: val_bpb \d\.\d{6} \(seeds? [\d ]+\); \d+ steps, [\d,]+ tokens; "
        r"[\d.]+ ms a step \(forward [\d.]+, head and loss [\d.]+, backward [\d.]+, optimizer "
        r"[\d.]+\); worst token [\d.]+ nats; ",  # too few steps for a mean of the last tenth
        r"baseline-1 \| baseline \| \d\.\d{6} \(seed 1\) \| baseline \| 9 steps\n",
        r"mutation-0001 on baseline-1 \| \w+: [^|]+ \| [^|]+sigma, seed \d\) \| [^|]+ \| \d+ steps \(",
    ):
        assert re.search(pattern, sent), (pattern, sent)
    # an attempt that has no proposal yet is not in flight
    assert "| running |" not in prompt_of(server.requests[0])
    # and what is the same in every request is read from the provider's cache
    later = [bill.usage for bill in server.bills[1:]]
    assert all(usage["cache_read_input_tokens"] > usage["input_tokens"] for usage in later)
