"""Edits as text: what is written is read back, and what is damaged is refused, never misapplied."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_autoresearch.core.proposal import Edit, EditError
from pytest_autoresearch.source.blocks import format_blocks, parse
from pytest_autoresearch.source.edits import apply, edits_between, unified

FAR = ("import math\nimport torch\n", "def schedule(progress):\n    return 1 - progress\n",
       "class Block:\n    heads = 4\n")  # fmt: skip
HEAD = FAR[0] + "\n\nWIDTH = 128\n"
FIRST = "LEARNING_RATE = 0.02\nWEIGHT_DECAY = 0.1\nBETAS = (0.8, 0.95)\n"
BETWEEN = "\nDEPTH = 7\n\n" + FAR[1] + "\n\nCAP = 15\n"
SECOND = "def activation(hidden):\n    squared = hidden.relu()\n    return squared.square()\n"
TAIL = "\n\nSEED = 9\n" + FAR[2]
SOURCE = {"train.py": HEAD + FIRST + BETWEEN + SECOND + TAIL}
CHANGED = {"train.py": HEAD + FIRST.replace("0.02", "0.03") + BETWEEN
           + SECOND.replace("square()", "abs()") + TAIL}  # fmt: skip
EDITS = (
    Edit("train.py", FIRST, FIRST.replace("0.02", "0.03")),
    Edit("train.py", SECOND, SECOND.replace("square()", "abs()")),
)
PROSE = "Title: a faster rate\nHypothesis: it was slow\n\n"
BLOCKS = PROSE + format_blocks(EDITS)
DIFF = PROSE + unified(SOURCE, CHANGED)

lines = st.text(st.characters(exclude_categories=("Cs", "Cc", "Zl", "Zp")), max_size=12).filter(
    lambda text: not text.startswith(("<<<", ">>>", "==="))
)
passages = st.lists(lines, min_size=1, max_size=4).map(lambda found: "\n".join(found) + "\n")
names = st.sampled_from(["train.py", "src/model.py", "a-b/c_d.txt"])


@given(st.lists(st.builds(Edit, names, passages, passages), min_size=1, max_size=4), st.booleans())
def test_blocks_are_parsed_with_and_without_fences(edits: list[Edit], fenced: bool) -> None:
    text = format_blocks(edits)
    if fenced:
        text = text.replace("<<<<<<< SEARCH", "```python\n<<<<<<< SEARCH")
        text = text.replace(">>>>>>> REPLACE", ">>>>>>> REPLACE\n```")
    found = parse(f"Title: t\nHypothesis: h\n\n{text}\nThat is all.\n")
    assert found.edits == tuple(edits)
    assert (found.title, found.hypothesis) == ("t", "h")


@given(passages, passages)
def test_any_change_can_be_expressed_in_blocks_and_in_a_diff(one, other) -> None:
    before, after = {"f.py": HEAD + one + TAIL}, {"f.py": HEAD + other + TAIL}
    assume(before != after)
    edits = edits_between(before["f.py"], after["f.py"], "f.py")
    assert apply(before, parse(format_blocks(edits)).edits) == after
    try:
        patched = apply(before, parse(unified(before, after)).edits)
    except EditError:
        return  # its context is not unique
    assert patched == after


def applied(text: str) -> str | None:
    """What a text makes of the source; None where it is refused."""
    try:
        return apply(SOURCE, parse(text, "train.py").edits)["train.py"]
    except EditError:
        return None


def in_place(result: str | None) -> bool:
    """Whether nothing was touched but the two passages and the lines beside them."""
    if result is None:
        return True
    return result.startswith(FAR[0]) and FAR[1] in result and result.endswith(FAR[2])


def test_undamaged_forms_apply() -> None:
    assert applied(BLOCKS) == applied(DIFF) == CHANGED["train.py"]


@settings(max_examples=300)
@given(st.sampled_from([BLOCKS, DIFF]), st.data())
def test_a_lost_or_doubled_line_never_changes_another_place(text: str, data: st.DataObject) -> None:
    kept = text.split("\n")
    at = data.draw(st.integers(0, len(kept) - 1))
    kept[at : at + 1] = data.draw(st.sampled_from([[], [kept[at]] * 2, ["", kept[at]]]))
    result = applied("\n".join(kept))
    assert in_place(result)
    if result is not None:
        assert result != SOURCE["train.py"]


@settings(max_examples=300)
@given(st.sampled_from([BLOCKS, DIFF]), st.data())
def test_damaged_letters_never_change_another_place(text: str, data: st.DataObject) -> None:
    at = data.draw(st.integers(0, len(text) - 1))
    cut = data.draw(st.integers(0, 8))
    put = data.draw(st.text("LR=0.2 \n<>+-@", max_size=4))
    assert in_place(applied(text[:at] + put + text[at + cut :]))


@pytest.mark.parametrize("mark", ["<<<<<<< SEARCH", "=======", ">>>>>>> REPLACE"])
@pytest.mark.parametrize("other", ["", "<<<<<< SEARCH", "  {}", "{}=", "> {}", "======"])
@pytest.mark.parametrize("number", [0, 1])
def test_a_block_with_a_damaged_marker_is_rejected(mark, other, number) -> None:
    parts = BLOCKS.split(mark)
    joined = [mark, mark]
    joined[number] = other.format(mark)
    with pytest.raises(EditError):
        parse(parts[0] + joined[0] + parts[1] + joined[1] + parts[2])


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("@@ -", "@ -"), "no @@ line"),
        (("--- a/train.py\n", ""), "no line ---"),
    ],
)
def test_a_hunk_without_its_header_is_rejected(damage, message) -> None:
    with pytest.raises(EditError, match=message):
        parse(DIFF[::-1].replace(damage[0][::-1], damage[1][::-1], 1)[::-1])


def test_ambiguous_indents_and_line_ends_do_not_match() -> None:
    twice = {"f.py": "if a:\n  x = 1\nif b:\n      x = 1\n"}
    with pytest.raises(EditError, match="2 times"):
        apply(twice, [Edit("f.py", "x = 1\n", "x = 2\n")])
    overlapping = {"f.py": "a\na\na\n"}
    with pytest.raises(EditError, match="2 times"):
        apply(overlapping, [Edit("f.py", "a\na\n", "b\n")])
    with pytest.raises(EditError, match="does not occur"):
        apply({"f.py": "MY_LR = 1\n"}, [Edit("f.py", "LR = 1\n", "LR = 2\n")])


def test_text_between_blocks_is_prose() -> None:
    text = BLOCKS.replace(">>>>>>> REPLACE\n", ">>>>>>> REPLACE\nIdea: try less\n", 1)
    found = parse(text)
    assert "Idea: try less" in found.prose.split("\n")
    assert "LEARNING_RATE" not in found.prose
    assert found.title == "a faster rate"
