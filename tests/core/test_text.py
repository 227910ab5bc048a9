"""Untrusted text becomes safe to print and store."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pytest_autoresearch.core.text import clean, harmless, one_line


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


@given(st.text(), st.integers(2, 40))
def test_one_line_returns_one_line_of_bounded_length(text, limit):
    line = one_line(text, limit)
    assert len(line) <= limit
    assert len(line.splitlines()) <= 1
    assert line.isprintable()


def test_printable_text_and_kept_characters_are_harmless() -> None:
    assert harmless("café\n\tx", "\n\t") == "café\n\tx"
    assert harmless("a\x1b[0m\u202eb\nc") == "a\ufffd[0m\ufffdb\ufffdc"
