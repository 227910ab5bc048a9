"""Edits apply exactly where they say, or not at all."""

from __future__ import annotations

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from pytest_autoresearch.core.proposal import Edit, EditError
from pytest_autoresearch.source.blocks import format_blocks, parse
from pytest_autoresearch.source.edits import COMPARED, apply, changed_lines, edits_between, unified

line = st.text(alphabet="ab =1#\t", max_size=6)
program = st.lists(line, min_size=1, max_size=12).map(lambda lines: "\n".join(lines) + "\n")


@given(program, program)
def test_edits_between_transform_one_text_into_the_other(before: str, after: str) -> None:
    assume(before.strip())
    edits = edits_between(before, after, "f")
    assert apply({"f": before}, edits)["f"] == after


@given(program, program)
def test_formatted_blocks_parse_to_the_same_edits(before: str, after: str) -> None:
    edits = edits_between(before, after, "f.py")
    assume(edits and before.strip())
    assert parse("Title: t\n\n" + format_blocks(edits), {}).edits == edits


@given(program, program)
def test_a_unified_diff_gives_the_same_result_or_none(before: str, after: str) -> None:
    assume(before.strip() and before != after)
    diff = unified({"f": before}, {"f": after})
    try:
        result = apply({"f": before}, parse(diff, {"f": before}).edits)["f"]
    except EditError:
        return
    assert result == after


@given(program, st.sampled_from(["a\n", "=1\n", "b #\n"]))
def test_an_ambiguous_search_never_applies(text: str, search: str) -> None:
    text = search + text + search
    with pytest.raises(EditError, match="occurs"):
        apply({"f": text}, [Edit("f", search, "x\n")])


def test_trailing_space_and_a_uniform_indent_are_ignored() -> None:
    text = "def f():\n    a = 1\n    b = 2\n"
    assert apply({"f": text}, [Edit("f", "    a = 1  \n    b = 2\n", "    c\n")])["f"] == (
        "def f():\n    c\n"
    )
    assert apply({"f": text}, [Edit("f", "a = 1  \nb = 2\n", "c\n")])["f"] == "def f():\n    c\n"


def test_similar_text_never_matches() -> None:
    with pytest.raises(EditError, match=r"does not occur; the nearest real lines are:\nLR = 0.02"):
        apply({"f": "LR = 0.02\n"}, [Edit("f", "LR = 0.03\n", "LR = 1\n")])


def test_edits_of_other_files_are_rejected() -> None:
    with pytest.raises(EditError, match=r"'prepare.py' may not be changed; editable: train.py"):
        apply({"train.py": "a\n"}, [Edit("prepare.py", "a", "b")])


def test_crlf_and_a_missing_last_newline_are_kept() -> None:
    text = "a\r\nb\r\nc"
    assert apply({"f": text}, [Edit("f", "b\n", "x\ny\n")])["f"] == "a\r\nx\r\ny\r\nc"
    assert apply({"f": text}, [Edit("f", "c", "d")])["f"] == "a\r\nb\r\nd"


def test_a_long_search_line_is_compared_up_to_a_bound() -> None:
    text = "".join(f"v{n} = {n}\n" for n in range(600))
    messages = set()
    for length in (COMPARED, 100_000):
        with pytest.raises(EditError, match="does not occur") as caught:
            apply({"f": text}, [Edit("f", "v7 = 8" + "q" * length, "b")])
        messages.add(str(caught.value))
    assert len(messages) == 1


def test_added_and_removed_lines_are_counted() -> None:
    assert changed_lines({"f": "a\nb\n"}, {"f": "a\nc\nd\n"}) == (2, 1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("just words", "no SEARCH/REPLACE block"),
        ("f.py\n<<<<<<< SEARCH\na\n=======\nb\n", "block 1 is not closed"),
        ("<<<<<<< SEARCH\na\n=======\nb\n>>>>>>> REPLACE\n", "block 1 has no file name"),
    ],
)
def test_malformed_proposals_are_rejected_with_a_reason(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        parse(text, {})


def test_title_and_hypothesis_are_parsed() -> None:
    found = parse(
        "Title: one\nHypothesis: two\n\n`f.py`\n<<<<<<< SEARCH\na\n=======\n>>>>>>> REPLACE\n",
        {},
    )
    assert (found.title, found.hypothesis) == ("one", "two")
    assert found.edits == (Edit("f.py", "a\n", ""),)


TABBED = {"f.py": "class A:\n\tdef f(self):\n\t\ta = 1\n\t\tif a:\n\t\t\tb = 2\n"}


def test_tabs_are_a_uniform_indent() -> None:
    edit = Edit("f.py", "a = 1\nif a:\n\tb = 2\n", "a = 3\nif a:\n\tb = 4\n")
    assert apply(TABBED, [edit])["f.py"] == TABBED["f.py"].replace("1", "3").replace("2", "4")
    deeper = Edit(
        "f.py", "\t\t\tdef f(self):\n\t\t\t\ta = 1\n", "\t\t\tdef f(self):\n\t\t\t\ta = 3\n"
    )
    assert apply(TABBED, [deeper])["f.py"] == TABBED["f.py"].replace("1", "3")
    with pytest.raises(EditError, match="the file is indented with tabs"):
        apply(TABBED, [Edit("f.py", "        a = 1\n", "        a = 3\n")])
