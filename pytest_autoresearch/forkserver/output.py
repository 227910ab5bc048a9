"""Captured output of a candidate: a bounded head and tail, cleaned for logs and prompts."""

from __future__ import annotations

import os
import threading

from ..core.text import clean

HEAD_BYTES = 16 * 1024
TAIL_BYTES = 64 * 1024


class Output:
    """Drains a pipe on its own thread and keeps the head and the tail of the stream.

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
        """Wait for the end of the output and return `text`."""
        self._thread.join(timeout_s)
        return self.text()

    def text(self) -> tuple[str, str]:
        """Return head and tail of the output so far, cleaned (see `core.text.clean`).

        The tail is ``""`` when everything fitted into the head. Where bytes were dropped between
        the two, each is cut at a line's end, so that no credential is cut in half.
        """
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
        return clean(head.decode("utf-8", "replace")), clean(tail.decode("utf-8", "replace"))

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
