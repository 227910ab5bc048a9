"""Make untrusted text safe to print and store."""

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
    """Remove terminal controls, invisible characters and credentials from `text`."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    text = _INVISIBLE.sub("", _ESCAPES.sub("", text))
    return _CREDENTIALS.sub("[credential removed]", text)


def harmless(text: str, keep: str = "") -> str:
    """Replace the characters of `text` that are neither printable nor in `keep` by U+FFFD."""
    rest = text
    for kept in keep:
        rest = rest.replace(kept, "")
    if rest.isprintable():  # fast: logs of a long campaign are megabytes
        return text
    return "".join(c if c.isprintable() or c in keep else "\ufffd" for c in text)


def one_line(text: object, limit: int = 300) -> str:
    """Return `text` as one clean, printable line of at most `limit` characters."""
    line = harmless(" ".join(clean(str(text)[: 16 * limit]).split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"
