from __future__ import annotations

import os
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.text import clean, one_line
from pytest_autoresearch.forkserver.output import Output


def printed(*chunks: bytes, head: int = 64, tail: int = 64) -> tuple[str, str]:
    output = Output(head, tail)
    for chunk in chunks:
        os.write(output.write_fd, chunk)
    os.close(output.write_fd)
    return output.finish()


def test_short_output_is_kept_completely():
    assert printed(b"one\n", b"two\n") == ("one\ntwo\n", "")


def test_long_output_keeps_head_and_tail_and_counts_dropped_bytes():
    lines = [b"line %03d\n" % i for i in range(100)]
    head, tail = printed(*lines)
    assert head.startswith("line 000\n")
    assert tail.endswith("line 099\n")
    assert len(tail) <= 64
    dropped = int(re.search(r"\[(\d+) bytes dropped\]", head)[1])
    assert dropped == 900 - 128


def test_one_long_line_is_bounded():
    head, tail = printed(b"x" * 60_000)
    assert len(head) + len(tail) < 200


def test_line_across_head_and_tail_is_not_split():
    head, tail = printed(b"a" * 50 + b"\n" + b"b" * 40 + b"\n")
    assert tail == "b" * 40 + "\n"
    assert head == "a" * 50 + "\n"


@pytest.mark.parametrize(
    "secret",
    [
        "sk-ant-api03-" + "A" * 20,
        "sk-proj-" + "b" * 24,
        "ghp_" + "c" * 36,
        "github_pat_" + "d" * 30,
        "AKIA" + "E" * 16,
        "Authorization: Bearer " + "f" * 20,
    ],
)
def test_credentials_are_removed(secret):
    shown = clean(f"key={secret}; done")
    assert secret.split()[-1] not in shown
    assert shown.startswith(("key=[", "key=Auth"))
    assert shown.endswith("; done")


def test_credential_split_by_colour_codes_is_removed():
    assert "ghp" not in clean("ghp_\x1b[31m" + "c" * 36)


def test_words_similar_to_credentials_are_kept():
    text = "task-list risk-averse sk-learn bearer of news AKIAH"
    assert clean(text) == text


def test_terminal_controls_are_stripped():
    text = "\x1b[1mbold\x1b[0m \x1b]0;title\x07x\rover\x08\x00‮\n\tkept é"
    assert clean(text) == "bold x\nover\n\tkept é"


@given(st.text())
def test_cleaned_text_holds_no_control_characters(text):
    assert not re.search(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", clean(text))


@given(st.binary(max_size=300))
def test_invalid_utf8_is_decoded(data):
    head, tail = printed(data)
    (head + tail).encode("utf-8")


@given(st.text(), st.integers(2, 40))
def test_one_line_returns_one_line_of_bounded_length(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line.isprintable()
