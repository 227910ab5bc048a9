"""TODO core.text."""

from __future__ import annotations

import re

_ESCAPES = re.compile(
    r"\x1b\[[0-?]*[ -/]*[@-~]"  # CSI: colours, cursor
    r"|\x1b[\]PX^_].*?(?:\x07|\x1b\\|\n|$)"  # OSC, DCS and the like: titles, links
    r"|\x1b[ -/]*[0-~]",
)

# C0 but tab and newline, C1, zero-width and direction marks, surrogates, the byte order mark.
_INVISIBLE = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u00ad\u061c\u200b-\u200f\u202a-\u202e\u2060-\u206f\ud800-\udfff\ufeff]"
)

_CREDENTIALS = re.compile(
    r"\bsk-ant-[\w-]{8,}"
    r"|\bsk-[\w-]{16,}"
    r"|\bgh[opsur]_\w{16,}"
    r"|\bgithub_pat_\w{16,}"
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"
    r"|\bhf_[A-Za-z0-9]{16,}"
    r"|\b[Bb]earer\s+[\w.~+/-]{8,}=*"
)


def clean(text: str) -> str:
    """Return `text` without terminal controls, invisible characters and credentials."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text))
    return _CREDENTIALS.sub("[credential removed]", text)


def harmless(text: str) -> str:
    """Return `text` without what a terminal obeys or reorders; nothing else is changed."""
    return "".join(c if c.isprintable() else "\ufffd" for c in text)


def one_line(text: object, limit: int = 300) -> str:
    """Return `text` as one line that any file, page and terminal can show as it is.

    It is cleaned, printable, and at most `limit` characters long.
    """
    line = harmless(" ".join(clean(str(text)[: 16 * limit]).split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"
