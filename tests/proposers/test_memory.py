"""Ideas and lessons: files that models and people edit, without losing each other's lines."""

from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.prompts import BASE, attempt, context

from pytest_autoresearch import Edit
from pytest_autoresearch.core.proposal import Proposer
from pytest_autoresearch.judge.families import FAMILIES
from pytest_autoresearch.proposers.draft import WithNotes
from pytest_autoresearch.proposers.history import LESSON_EVERY
from pytest_autoresearch.proposers.llm.prompt import compose
from pytest_autoresearch.proposers.llm.repair import Reply, converse
from pytest_autoresearch.proposers.memory import MOST_IDEAS, MOST_OPEN, Notebook, distil, remarks
from pytest_autoresearch.proposers.papers import Library

RATE = Edit("train.py", "LR = 0.02\n", "LR = 0.03\n")


@pytest.fixture
def notebook(tmp_path: Path) -> Notebook:
    return Notebook(tmp_path / "campaign")


def ideas(notebook: Notebook) -> list[str]:
    return [x for x in notebook.ideas().splitlines() if x.startswith("- [")]


# ---------------------------------------------------------------------- remarks of an answer


def test_remarks_are_parsed_with_any_decoration() -> None:
    answer = "Title: t\n**Idea:** warm up longer\n- Idea: tie the weights\nDone: `halve the batch`\nlesson: depth hurts\nIdea:\n"
    assert remarks(answer) == {
        "ideas": ["warm up longer", "tie the weights"],
        "done": ["halve the batch"],
        "lessons": ["depth hurts"],
    }
    assert remarks("An idea: in the middle of no line\nidealess: no") == {}


@pytest.mark.parametrize(
    ("answer", "family", "expected"),
    [
        ("Family: optimizer\nExpected: +0.012 bpb", "optimizer", 0.012),
        ("**Family:** Optimiser (Muon)\n- Expected: 0.005-0.02", "optimizer", 0.0125),
        ("Family: data-order\nExpected: -0.01 to -0.03 val_bpb", "data order", 0.02),
        ("Family: magic\nExpected: unknown", None, None),
        ("family: Initialization\nexpected: .02 (at 2 layers)", "initialisation", 0.02),
        ("Family: schedule, or optimizer\nExpected: about 3 %", "schedule", None),
        ("Expected: 3 % or 0.01\nExpected: 5", None, 0.01),
        ("Expected: 1e-2", None, 0.01),
        ("Expected: 1e999\nFamily: deletion", "deletion", None),
    ],
)
def test_family_and_expected_gain_are_parsed(answer, family, expected) -> None:
    parsed = remarks(answer)
    assert parsed.get("family") == family
    assert parsed.get("expected") == (None if expected is None else pytest.approx(expected))


@given(st.text(max_size=80), st.text(max_size=80))
def test_any_family_and_expectation_are_safe(family: str, expected: str) -> None:
    parsed = remarks(f"Family: {family}\nExpected: {expected}")
    assert parsed.get("family", FAMILIES[0]) in FAMILIES
    assert 0 < parsed.get("expected", 1.0) < math.inf


@given(st.floats(1e-6, 10), st.floats(1e-6, 10), st.sampled_from(["-", " to ", "–"]))
def test_a_range_is_its_middle(low: float, high: float, between: str) -> None:
    text = f"Expected: {low:.6f}{between}{high:.6f} bpb"
    assert remarks(text)["expected"] == pytest.approx((low + high) / 2, abs=1e-6)


def test_remarks_are_bounded_in_number_and_length() -> None:
    parsed = remarks("\n".join(f"Idea: {n}" for n in range(50)))["ideas"]
    assert parsed == ["0", "1", "2"][:MOST_IDEAS]
    [long] = remarks(f"Idea: <b>\x1b[31m{'x' * 1000}")["ideas"]
    assert len(long) <= 200
    assert not set(long) & set("<\x1b\n")


def test_remarks_are_stored_in_the_proposals_meta() -> None:
    answer = (
        "Title: t\nIdea: tie the weights\n\ntrain.py\n<<<<<<< SEARCH\nLR = 0.02\n=======\n"
        "LR = 0.03\n# Idea: not this one\n>>>>>>> REPLACE\nDone: raise the rate\n"
    )
    proposal = converse(lambda turns: Reply(answer, _usage()), context(), "x")
    assert proposal.meta["ideas"] == ["tie the weights"]
    assert proposal.meta["done"] == ["raise the rate"]


def _usage():
    from pytest_autoresearch.core.proposal import Usage

    return Usage("m", requests=1)


@given(st.text(max_size=300))
def test_any_prose_is_parsed(prose: str) -> None:
    for texts in remarks(prose).values():
        assert texts
        assert all(text and "\n" not in text for text in texts)


# ---------------------------------------------------------------------- the backlog


def test_ideas_are_added_once_and_ticked_off(notebook: Notebook) -> None:
    notebook.note({"ideas": ["Tie the weights.", "warm up longer"]}, "mutation-0001")
    notebook.note({"ideas": ["tie the  weights"]}, "mutation-0002")
    notebook.note({"done": ["tie the weights"]}, "mutation-0003")
    assert ideas(notebook) == [
        "- [x] Tie the weights. (from mutation-0001)",
        "- [ ] warm up longer (from mutation-0001)",
    ]
    notebook.note({"ideas": ["Tie the weights"]}, "mutation-0004")
    assert len(ideas(notebook)) == 2


def test_ambiguous_beginning_ticks_off_nothing(notebook: Notebook) -> None:
    notebook.note({"ideas": ["use a cosine schedule", "use a cosine schedule with restarts"]})
    notebook.note({"done": ["use a cosine"]})  # both have this beginning
    notebook.note({"done": ["use"]})
    assert all(idea.startswith("- [ ]") for idea in ideas(notebook))
    notebook.note({"done": ["use a cosine schedule"]})
    assert [idea[:5] for idea in ideas(notebook)] == ["- [x]", "- [ ]"]


def test_users_lines_are_kept(notebook: Notebook) -> None:
    notebook.folder.mkdir()
    own = b"# My list\r\n\r\nBe bold.\n\n* [ ] try muon\n\nNot utf-8: \xff\n"
    (notebook.folder / "ideas.md").write_bytes(own)
    (notebook.folder / "lessons.md").write_text("Depth 5 never fits.\n")
    notebook.note({"done": ["Try muon"], "ideas": ["tie weights"], "lessons": ["width helps"]}, "m")
    after = (notebook.folder / "ideas.md").read_bytes()
    assert after == own.replace(b"[ ]", b"[x]") + b"- [ ] tie weights (from m)\n"
    lessons = notebook.lessons([BASE, *(attempt(n) for n in range(2, 30))])
    assert lessons.startswith("Depth 5 never fits.\n- width helps (from m)\n")
    prompt = compose(context(ideas=notebook.ideas(), lessons=lessons))
    assert "Be bold." in prompt.user[-1]
    assert "Depth 5 never fits." in prompt.user[-1]


def test_deleted_mark_loses_no_user_text(notebook: Notebook) -> None:
    history = [BASE, *(attempt(n) for n in range(2, 40))]
    notebook.lessons(history[:15])
    file = notebook.folder / "lessons.md"
    file.write_text(file.read_text().replace("<!-- end -->\n", "") + "Depth 5 never fits.\n")
    for upto in (15, 25, 39):
        assert "Depth 5 never fits.\n" in notebook.lessons(history[:upto])


def test_deleted_files_are_created_again(notebook: Notebook) -> None:
    notebook.note({"ideas": ["one idea"], "lessons": ["one lesson"]})
    for name in ("ideas.md", "lessons.md"):
        (notebook.folder / name).unlink()
    assert (notebook.ideas(), notebook.lessons()) == ("", "")
    notebook.note({"ideas": ["another"]})
    assert ideas(notebook) == ["- [ ] another"]


def test_full_backlog_accepts_no_ideas(notebook: Notebook) -> None:
    for n in range(MOST_OPEN + 5):
        notebook.note({"ideas": [f"idea number {n}"]})
    assert len(ideas(notebook)) == MOST_OPEN
    notebook.note({"done": ["idea number 7"]})
    notebook.note({"ideas": ["one more idea"]})
    assert "- [ ] one more idea" in ideas(notebook)


def test_concurrent_writes_lose_nothing(notebook: Notebook) -> None:
    def worker(name: str) -> None:
        for n in range(8):
            Notebook(notebook.folder).note({"ideas": [f"{name} {n}"]})

    threads = [threading.Thread(target=worker, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(ideas(notebook)) == 32


notes = st.lists(st.text(max_size=30) | st.none() | st.integers(), max_size=4)


@given(st.lists(st.dictionaries(st.sampled_from(["ideas", "done", "lessons"]), notes), max_size=5))
def test_untrusted_meta_keeps_the_files_lists(tmp_path_factory, entries) -> None:
    notebook = Notebook(tmp_path_factory.mktemp("notes"))
    for entry in entries:
        notebook.note(entry, "mutation-0001")
    texts = [x.partition("] ")[2] for x in notebook.ideas().splitlines()[2:]]
    assert all(texts)
    assert len(set(texts)) == len(texts)
    before = notebook.ideas(), notebook.lessons()
    for entry in entries:
        notebook.note({k: v for k, v in entry.items() if k != "done"}, "mutation-0001")
    assert (notebook.ideas(), notebook.lessons()) == before


# ---------------------------------------------------------------------- lessons


def history_of(length: int) -> list:
    history = [BASE]
    for n in range(2, length + 2):
        if n % 5 == 0:
            history.append(attempt(n, "crash", score=None, gain=None, gain_sigma=None, reason="OOM"))
        elif n % 7 == 0:
            history.append(attempt(n, "keep", gain=0.01 * n, gain_sigma=4.0, edits=(RATE,)))
        else:
            history.append(attempt(n, gain=-0.05, gain_sigma=-5.0, edits=(RATE,)))
    return history


def test_lessons_are_drawn_every_ten_attempts(notebook: Notebook) -> None:
    assert notebook.lessons(history_of(LESSON_EVERY - 1)) == ""
    first = notebook.lessons(history_of(LESSON_EVERY))
    assert "of 10 attempts: 2 crash, 7 discard, 1 keep" in first
    assert "helped: idea 7 (+0.070000, mutation-0007)" in first
    assert "failed: crash: OOM (x2)" in first
    assert "LR alone, 8 times: gains from -0.050000 to +0.070000" in first
    assert [notebook.lessons(history_of(n)) for n in range(11, 20)] == [first] * 9
    second = notebook.lessons(history_of(20))
    assert "of 20 attempts" in second
    assert "of 10 attempts" not in second
    assert notebook.lessons(history_of(12)) == second  # a worker with an older history changes nothing


def test_lessons_are_deterministic() -> None:
    assert distil(history_of(40)) == distil(history_of(40))
    assert all("\n" not in lesson and len(lesson) < 1500 for lesson in distil(history_of(200)))


def test_prompt_requests_a_lesson_every_tenth_attempt() -> None:
    assert "begins with Lesson:" in compose(context(attempt=20)).user[-1]
    assert "begins with Lesson:" not in compose(context(attempt=21)).user[-1]


# ---------------------------------------------------------------------- context of a proposer


def test_slow_proposer_gets_the_current_notes(notebook, tmp_path) -> None:
    class Echo(Proposer):
        name = "echo"

        def propose(self, context):
            return context

    folder = tmp_path / "literature"
    folder.mkdir()
    (folder / "own.md").write_text("smaller batches generalise")
    informed = WithNotes(Echo(), notebook, Library(tmp_path / "papers.json", notes=folder))
    notebook.note({"ideas": ["tie the weights"]})
    given = informed.propose(context(*history_of(10)[1:]))
    assert "tie the weights" in given.ideas
    assert "of 10 attempts" in given.lessons
    assert "smaller batches" in given.literature
    (notebook.folder / "ideas.md").write_text("- [ ] an idea of the user\n")
    assert informed.propose(context()).ideas == "- [ ] an idea of the user\n"
    for agent in (False, True):
        text = "\n".join(compose(given, agent=agent).user)
        assert all(x in text for x in ("tie the weights", "of 10 attempts", "smaller batches"))
