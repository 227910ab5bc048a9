"""Static checks before training: rejections, notes and durations."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.project import Project

from pytest_autoresearch.source.checks import CHECKS, MAX_LITERAL_BYTES, fits_memory, run_checks
from pytest_autoresearch.source.fingerprint import fingerprint, shape

BEFORE = {"train.py": "import os\nLR = 0.5\n\n\ndef step(x):\n    return x * LR\n"}
UNREADABLE = {
    "nested operators": "A = " + "-" * 20_000 + "1\n",
    "nested words": "A = " + "not " * 7_000 + "1\n",
    "a long chain": "A = x" + ".y" * 3_000 + "\n",
    "a long sum": "A = x" + " + x" * 3_000 + "\n",
    "parentheses": "A = " + "(" * 3_000 + ")" * 3_000 + "\n",
    "many branches": "if a:\n  pass\n" + "elif a:\n  pass\n" * 3_000,
    "a null byte": "A = 1\0\n",
    "half a character": "A = '\ud800'\n",
}


def after(text: str) -> dict[str, str]:
    return {"train.py": BEFORE["train.py"] + text}


def refused_by(text: str) -> tuple[str, str]:
    note = run_checks(BEFORE, after(text))[-1]
    assert not note.ok
    return note.name, note.detail


def uses(text: str) -> str:
    note = run_checks(BEFORE, after(text))[-1]
    assert note.name == "advisory_scan"
    assert note.ok
    return note.detail


def test_a_valid_change_passes_every_check_and_durations_are_noted() -> None:
    notes = run_checks(BEFORE, after("WIDTH = 64\n"))
    assert [note.name for note in notes] == [check.__name__ for check in CHECKS]
    assert all(note.ok for note in notes)
    assert all(note.seconds > 0 for note in notes)


def test_the_first_failed_check_is_the_last() -> None:
    notes = run_checks(BEFORE, after("def (\n"))
    assert [note.ok for note in notes] == [True] * (len(notes) - 1) + [False]
    assert notes[-1].name == "parses"
    assert "train.py line 7 does not compile" in notes[-1].detail


@pytest.mark.parametrize("text", UNREADABLE.values(), ids=UNREADABLE)
def test_unparsable_text_is_rejected_and_has_a_fingerprint(text: str) -> None:
    name, detail = refused_by(text)
    assert name == "parses"
    assert detail.rstrip().startswith("train.py")
    assert not detail.rstrip().endswith(":")
    assert fingerprint(after(text)) != fingerprint(BEFORE)
    assert shape(after(text)) != shape(BEFORE)


@given(st.text(max_size=200))
def test_any_text_gets_a_result(text: str) -> None:
    notes = run_checks(BEFORE, after(text))
    assert notes[-1].detail or notes[-1].ok
    assert shape(after(text)).close_to(shape(after(text)), 0.05)


def test_compiler_warnings_are_ignored(
    recwarn: pytest.WarningsRecorder,
) -> None:
    assert all(note.ok for note in run_checks(BEFORE, after("PATTERN = '\\d'\n")))
    assert not recwarn.list


def test_a_change_of_comments_only_is_rejected() -> None:
    assert refused_by("# faster\n") == (
        "changes_something",
        "the edits change nothing that runs",
    )


def test_added_and_removed_files_are_rejected() -> None:
    added = run_checks(BEFORE, {**BEFORE, "prepare.py": "x = 1\n"})[-1]
    assert (added.ok, added.name) == (False, "touches_only_editable")
    assert added.detail == "prepare.py may not be changed; editable: train.py"
    gone = run_checks({**BEFORE, "model.py": ""}, after("A = 1\n"))[-1]
    assert (gone.ok, "model.py is missing" in gone.detail) == (False, True)


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        (f"W = {'x' * 30_000!r}\n", "holds a literal of 30000 characters"),
        (f"W = 0x{'f' * 30_000}\n", "holds a literal of 30000 characters"),
        ("".join(f"W{i} = {'x' * 9_000!r}\n" for i in range(3)), "grow by 2700"),
        (f"W = {[0.1] * 3000!r}\n", "grow by 48000 characters altogether"),
        ("A = 1\n" * 40_000, "at most 200000 are accepted"),
    ],
    ids=["text", "number", "pieces", "numbers", "length"],
)
def test_large_literals_are_rejected(text: str, detail: str) -> None:
    name, shown = refused_by(text)
    assert name == "stays_small"
    assert detail in shown


def test_files_and_literals_may_stay_as_large_as_the_parents() -> None:
    table = f"TABLE = {'x' * 2 * MAX_LITERAL_BYTES!r}\n" + "# a line\n" * 30_000
    before, now = after(table), after(table + "DEPTH = 3\n")
    assert not run_checks(before, now)[-1].ok
    assert all(
        n.ok for n in run_checks(before, {"train.py": now["train.py"].replace("# a line\n", "", 3)})
    )


@pytest.mark.parametrize(
    ("text", "detail"),
    [
        ("os.system('ls')\n", "os.system"),
        ("import os as o\no.execv('x', [])\n", "os.execv"),
        ("from os import popen as p\np('ls')\n", "os.popen"),
        ("import subprocess, socket\n", "socket, subprocess"),
        ("from urllib.request import urlopen\n", "urllib"),
        ("import torch\ntorch.hub.load('a', 'b')\n", "torch.hub"),
        ("eval('1'); exec('1')\n", "eval, exec"),
        ("run = __import__('os').system\n", "__import__"),
    ],
)
def test_suspicious_calls_are_noted_by_their_real_name(text: str, detail: str) -> None:
    assert uses(text) == f"uses {detail}"


@pytest.mark.parametrize(
    "text",
    [
        "model.eval()\n",
        "import torch\ntorch.compile(step)\n",
        "compile = True\nA = 1 if compile else 2\n",
        "import httpx2 as x\n",
        "os.cpu_count()\n",
        "import os.path\nos.path.join('a', 'b')\n",
    ],
)
def test_harmless_names_are_not_noted(text: str) -> None:
    assert uses(text) == ""


def test_peak_memory_of_the_first_steps_is_compared_with_the_bound() -> None:
    assert fits_memory(8 << 30, 9 << 30).detail == "8192 MiB in the first steps, 89% of the bound"
    over = fits_memory(10 << 30, 9 << 30)
    assert not over.ok
    assert over.detail == "10240 MiB in the first steps; at most 9216 MiB are allowed"
    assert fits_memory(0, 9 << 30).ok
    assert fits_memory(1 << 40, None).ok


def test_an_unparsable_proposal_costs_one_attempt_and_the_session_continues(
    project: Project,
) -> None:
    def idea(*lines: str) -> str:
        text = "\n".join(lines)
        return (
            "Title: odd\n\ntrain.py\n<<<<<<< SEARCH\n# ideas go here\n=======\n"
            f"{text}\n# ideas go here\n>>>>>>> REPLACE\n"
        )

    project.propose(
        idea("A = " + "-" * 20_000 + "1"),
        idea("A = 0x" + "f" * 10_000, "SCORE = 1.5"),
        idea("def huge():", "    return 9**9**9**9", "SCORE = 1.5"),
    )
    result = project.run("--iterations=3", timeout=60)
    assert result.ret == 0
    assert project.verdicts() == ["invalid", "discard", "discard"]


def test_a_byte_order_mark_is_accepted() -> None:
    before = {"train.py": "\ufeffA = 1\n"}
    assert run_checks(before, {"train.py": "\ufeffA = 2\n"})[-1].ok
    assert run_checks(before, {"train.py": "A = 1\n"})[-1].name == "changes_something"


def test_an_unknown_encoding_is_rejected() -> None:
    note = run_checks({"train.py": "A = 1\n"}, {"train.py": "# coding: nonsense\nA = 2\n"})[-1]
    assert (note.name, note.ok, "nonsense" in note.detail) == ("parses", False, True)


def test_a_return_to_the_baseline_is_a_duplicate(project: Project) -> None:
    back = (
        "Title: back\n\ntrain.py\n<<<<<<< SEARCH\nSCORE = 0.5\n# ideas go here\n=======\n"
        "# ideas go here\n>>>>>>> REPLACE\n"
    )
    project.propose(0.5, back)
    project.run("--iterations=2", "--autoresearch-confirm=0")
    assert project.verdicts() == ["keep", "duplicate"]
    last = project.ledger().attempts()[-1]
    assert last.reason.startswith("same code as baseline-1 (baseline): baseline at 1.000")
