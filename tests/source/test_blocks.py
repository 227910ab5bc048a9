"""Edits as text: what is written is read back, and what is damaged is refused, never misapplied."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from pytest_autoresearch.core.proposal import Edit, EditError
from pytest_autoresearch.source.blocks import format_blocks, parse, without_thoughts
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
    found = parse(f"Title: t\nHypothesis: h\n\n{text}\nThat is all.\n", {})
    assert found.edits == tuple(edits)
    assert (found.title, found.hypothesis) == ("t", "h")


@given(passages, passages)
def test_any_change_can_be_expressed_in_blocks_and_in_a_diff(one, other) -> None:
    before, after = {"f.py": HEAD + one + TAIL}, {"f.py": HEAD + other + TAIL}
    assume(before != after)
    edits = edits_between(before["f.py"], after["f.py"], "f.py")
    assert apply(before, parse(format_blocks(edits), before).edits) == after
    try:
        patched = apply(before, parse(unified(before, after), before).edits)
    except EditError:
        return  # its context is not unique
    assert patched == after


def applied(text: str) -> str | None:
    """What a text makes of the source; None where it is refused."""
    try:
        return apply(SOURCE, parse(text, SOURCE).edits)["train.py"]
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
        parse(parts[0] + joined[0] + parts[1] + joined[1] + parts[2], SOURCE)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (("@@ -", "@ -"), "no @@ line"),
        (("--- a/train.py\n", ""), "no line ---"),
    ],
)
def test_a_hunk_without_its_header_is_rejected(damage, message) -> None:
    with pytest.raises(EditError, match=message):
        parse(DIFF[::-1].replace(damage[0][::-1], damage[1][::-1], 1)[::-1], SOURCE)


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
    found = parse(text, SOURCE)
    assert "Idea: try less" in found.prose.split("\n")
    assert "LEARNING_RATE" not in found.prose
    assert found.title == "a faster rate"


# ---------------------------------------------------------------------- variants that models write


def block(old: str, new: str, name: str = "train.py\n") -> str:
    return f"{name}<<<<<<< SEARCH\n{old}=======\n{new}>>>>>>> REPLACE\n"


DRAFT = "Title: narrower\n\n" + block("WIDTH = 128\n", "WIDTH = 64\n") + "No, the rate.\n"


@pytest.mark.parametrize(
    "thoughts",
    [
        f"<think>\n{DRAFT}</think>\n",
        f"\n <thinking>{DRAFT}</thinking>",
        f"{DRAFT}</think>\n\n",
        f"<think>\n{DRAFT}</think>\n<think>\nyes\n</think>\n",
        f"[THINK]{DRAFT}[/THINK]",
        f"<seed:think>{DRAFT}</seed:think>",
        f"<think>is `</think>` the mark?\n{DRAFT}\n</think>\n",
        f"<|channel|>analysis<|message|>{DRAFT}<|end|><|start|>assistant<|channel|>final<|message|>",
        "",
    ],
)
def test_thoughts_are_no_part_of_an_answer(thoughts: str) -> None:
    found = parse(without_thoughts(thoughts + BLOCKS), SOURCE)
    assert (found.title, found.hypothesis, found.edits) == ("a faster rate", "it was slow", EDITS)


@pytest.mark.parametrize(
    "text",
    [
        f"<think>\n{DRAFT}",
        f"<think>a</think>{DRAFT}<think>\nb\n</think>\n{BLOCKS}",
        f"{BLOCKS}\n<think>\n{DRAFT}</think>\n",
        f"{BLOCKS}\n<think>\n{DRAFT}",
    ],
    ids=["no end", "between", "after", "after, no end"],
)
def test_an_answer_among_thoughts_is_refused(text: str) -> None:
    with pytest.raises(EditError):
        parse(without_thoughts(text), SOURCE)


def test_a_program_may_hold_the_marks_of_thoughts() -> None:
    files = {"train.py": 'OPEN = """\n<think>\n"""\nCLOSE = "</think>"\nLR = 1\n'}
    text = block("<think>\n", "<thought>\n") + block('CLOSE = "</think>"\n', 'CLOSE = "x"\n')
    changed = apply(files, parse(without_thoughts("Title: t\n\n" + text), files).edits)
    assert changed["train.py"] == 'OPEN = """\n<thought>\n"""\nCLOSE = "x"\nLR = 1\n'


TWO = {"model.py": "LR = 0.04\nDEPTH = 4\n", "optim.py": "LR = 0.1\nDEPTH = 4\nBETA = 0.9\n"}


@pytest.mark.parametrize(
    ("above", "file"),
    [
        ("", "optim.py"),
        ("Then the depth:\n", "optim.py"),
        ("Then the depth of **model.py**:\n```python\n", "model.py"),
        ("2. `./model.py`\n", "model.py"),
        ("### File: model.py\n", "model.py"),
    ],
)
def test_a_block_without_a_name_belongs_to_the_file_named_last(above: str, file: str) -> None:
    text = block("BETA = 0.9\n", "BETA = 0.95\n", "optim.py\n")
    text += "\n" + above + block("DEPTH = 4\n", "DEPTH = 8\n", "")
    assert [edit.file for edit in parse(text, TWO).edits] == ["optim.py", file]


@pytest.mark.parametrize(
    ("above", "message"),
    [("", "block 1 has no file name"), ("Both model.py and optim.py:\n", "model.py and optim.py")],
)
def test_the_first_of_several_files_is_not_guessed(above: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        parse("Title: t\n\n" + block("DEPTH = 4\n", "DEPTH = 8\n", above), TWO)


LISTED = "1. The change:\n\n   train.py\n   ```python\n" + "".join(
    f"   {line}\n" for line in block("CAP = 15\n", "CAP = 30\n", "").splitlines()
) + "   ```\n"  # fmt: skip


@pytest.mark.parametrize(
    "text",
    [
        LISTED,
        block("CAP = 15\n", "CAP = 30\n").replace("<" * 7, "<" * 6).replace(">" * 7, ">" * 6)
        .replace("=" * 7, "=" * 6),
        block("CAP = 15\n", "CAP = 30\n").replace("<" * 7, "<" * 8).replace(">" * 7, ">" * 8)
        .replace("=" * 7, "=" * 8),
        block("CAP = 15\n", "CAP = 30\n").replace("SEARCH", "search").replace("REPLACE", "replace"),
        block("CAP = 15\n", "CAP = 30\n").replace("SEARCH", "ORIGINAL").replace("REPLACE", "UPDATED"),
        block("CAP = 15\n", "CAP = 30\n", "").replace("SEARCH", "SEARCH train.py"),
    ],
    ids=["listed", "six", "eight", "lower case", "original", "name in the mark"],
)  # fmt: skip
def test_variants_of_the_marks_are_read(text: str) -> None:
    found = parse("Title: t\n\n" + text, SOURCE)
    assert apply(SOURCE, found.edits) == {"train.py": SOURCE["train.py"].replace("15", "30")}


def test_an_indented_block_goes_to_one_place_or_to_none() -> None:
    inner = "    return 1 - progress\n"
    marked = block(inner, inner.replace("1", "2"), "")
    text = "train.py\n" + "".join(f"    {line.lstrip()}\n" for line in marked.splitlines())
    assert "return 2 - progress" in apply(SOURCE, parse(text, SOURCE).edits)["train.py"]
    both = {"train.py": SOURCE["train.py"] + inner.lstrip()}
    with pytest.raises(EditError, match="two indents"):
        parse(text, both)
    uneven = LISTED.replace("   CAP = 30", "CAP = 30")
    with pytest.raises(EditError, match="unevenly"):
        parse(uneven, SOURCE)


@pytest.mark.parametrize("mark", ["<<<<<<< SEARCHED", "<<<<<<<", "    <<<<<<<< FIND"])
def test_a_reason_names_the_mark_that_is_wrong(mark: str) -> None:
    with pytest.raises(EditError, match="from the first column"):
        parse(block("CAP = 15\n", "CAP = 30\n").replace("<<<<<<< SEARCH", mark), SOURCE)


# ---------------------------------------------------------------------- whole files

NOTE = '"""Usage:\n\n```\nrun()\n```\n"""\n'
BOTH = {"a.py": NOTE + "A = 1\n", "b.py": "B = 1\r\nC = 2\r\n"}


def test_whole_files_become_edits() -> None:
    text = (
        "Title: t\nHypothesis: h\n\na.py\n```python\n" + NOTE + "A = 2\n```\n\n`b.py`\n```\nB = 3\n"
        "C = 2\n```\nIdea: less\n"
    )
    found = parse(text, BOTH, whole=True)
    assert apply(BOTH, found.edits) == {"a.py": NOTE + "A = 2\n", "b.py": "B = 3\r\nC = 2\r\n"}
    assert (found.title, found.hypothesis) == ("t", "h")
    assert "Idea: less" in found.prose.split("\n")
    assert parse(BLOCKS, SOURCE, whole=True).edits == EDITS
    one = parse("Title: t\n```python\nB = 3\nC = 2\n```\n", {"b.py": BOTH["b.py"]}, whole=True)
    assert one.edits == (Edit("b.py", "B = 1\n", "B = 3\n"),)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("```python\nA = 2\n```\n", "no changed file"),
        ("a.py\n```python\n" + NOTE + "A = 1\n```\n", "no changed file"),
        ("b.py\n```\nB = 3\n# ... rest of the file unchanged\n```\n", "send the whole file"),
        ("b.py\n```\nB = 3\nC = 2\n", "not closed"),
        ("b.py\n```\nB = 3\n```\nb.py\n```\nC = 3\n```\n", "two texts of b.py"),
        ("I would rather not.", "no changed file"),
    ],
)
def test_what_is_no_whole_file_is_refused(text: str, message: str) -> None:
    with pytest.raises(EditError, match=message):
        parse(text, BOTH, whole=True)
