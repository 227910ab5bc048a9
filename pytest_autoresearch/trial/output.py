"""What a candidate printed: a bounded beginning and end of it, made safe to show.

The text goes into logs, reports and prompts, so it is decoded without failing, stripped of
terminal controls and invisible characters, and of anything that looks like a credential.
"""

from __future__ import annotations

import os
import re
import threading

HEAD_BYTES = 16 * 1024
TAIL_BYTES = 64 * 1024

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


class Output:
    """Drains a pipe on a thread of its own, keeping a head and a tail of what comes.

    Attributes:
        write_fd: The descriptor to give to the process, and then to close.
    """

    def __init__(self, head_bytes: int = HEAD_BYTES, tail_bytes: int = TAIL_BYTES) -> None:
        self._read_fd, self.write_fd = os.pipe()
        self._limits = (head_bytes, tail_bytes)
        self._head, self._tail, self._dropped = bytearray(), bytearray(), 0
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._drain, name="output", daemon=True)
        self._thread.start()

    def finish(self, timeout_s: float = 2.0) -> tuple[str, str]:
        """Wait for the end of the output; return its head and tail, cleaned.

        The tail is ``""`` when everything fitted into the head. Where bytes were dropped between
        the two, each is cut at a line's end, so that no credential is cut in half.
        """
        self._thread.join(timeout_s)
        return self.text()

    def text(self) -> tuple[str, str]:
        """Head and tail of what came so far, cleaned."""
        with self._lock:
            head, tail, dropped = bytes(self._head), bytes(self._tail), self._dropped
        if dropped:
            head = head[: head.rfind(b"\n") + 1] or head
            tail = tail[tail.find(b"\n") + 1 :]
            head += b"[%d bytes dropped]\n" % dropped
        elif tail and len(head) + len(tail) <= sum(self._limits):
            cut = head.rfind(b"\n") + 1  # keep the line that straddles both whole
            if cut:
                head, tail = head[:cut], head[cut:] + tail
        return tuple(clean(part.decode("utf-8", "replace")) for part in (head, tail))  # type: ignore[return-value]

    def _drain(self) -> None:
        head_limit, tail_limit = self._limits
        while data := os.read(self._read_fd, 65536):
            with self._lock:
                room = head_limit - len(self._head)
                self._head += data[:room]
                self._tail += data[room:] if room > 0 else data
                if (excess := len(self._tail) - tail_limit) > 0:
                    del self._tail[:excess]
                    self._dropped += excess
        os.close(self._read_fd)
