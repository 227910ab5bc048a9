"""Keeps the HTML report of a running campaign fresh, beside the trials and never in their way."""

from __future__ import annotations

import contextlib
import threading
import time
from pathlib import Path

from ..ledger import Ledger
from . import html
from .live import read_status

SHARE = 0.02
"""Most of the time that may go into writing the page; a long campaign's is written less often."""


def pause(cost_s: float) -> float:
    """Return how many seconds to rest after a page that took `cost_s`."""
    return max(1.0, cost_s / SHARE)


class LivePage:
    """A thread that writes the page when something ended, and now and then for what still runs.

    It reads the ledger over a connection of its own, so that a long read holds up no trial. What
    cannot be written is left until the next attempt: the ledger has everything.
    """

    def __init__(self, path: Path, root: Path, tag: str) -> None:
        self.path = path
        self._ledger = Ledger.open(root, tag)
        self._stop, self._changed = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._loop, name="autoresearch-page", daemon=True)

    def start(self) -> None:
        """Begin to write."""
        self._thread.start()

    def changed(self) -> None:
        """Say that a slot ended; returns at once, the page follows soon."""
        self._changed.set()

    def finish(self) -> None:
        """Stop, and write the page of a campaign that runs no more.

        Raises:
            Exception: It cannot be written; the ledger still holds everything.
        """
        self._stop.set()
        self._changed.set()
        if self._thread.ident is not None:
            self._thread.join()
        try:
            self._write(live=False)
        finally:
            self._ledger.close()

    def _loop(self) -> None:
        while True:
            started = time.monotonic()
            with contextlib.suppress(Exception):  # the next attempt is seconds away
                self._write(live=True)
            rest = pause(time.monotonic() - started)
            if self._stop.wait(rest):
                return
            self._changed.wait(max(0.0, html.RELOAD_S - rest))
            self._changed.clear()
            if self._stop.is_set():
                return

    def _write(self, live: bool) -> None:
        facts = html.gather(self._ledger, read_status(self._ledger.path.parent))
        slots, champions = self._ledger.slots(), self._ledger.champions()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        html.write(self.path, slots, champions, facts, live=live)
