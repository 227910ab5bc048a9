"""What is rewritten from the ledger after every slot: ``results.tsv``, the junit log, the page."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..experiment import Metric
    from ..ledger import Ledger
    from .livepage import LivePage

QUICK_S = 0.5
"""Seconds that writing may take at any time; what takes longer keeps to `SHARE`."""

SHARE = 0.05
"""Share of the time that writing may take, so that a long campaign's slots are not held up."""


@dataclass
class Logs:
    """The files that one session keeps up to date.

    A file that cannot be written is left as it is, with a warning: the ledger holds everything,
    and a full disk must not end a night.

    Attributes:
        root: The project.
        ledger: Of the campaign.
        metric: Of the experiment.
        junit: Where the junit log goes, if anywhere.
        first_session: This run's session; slots of earlier ones are marked.
        page: The HTML page, which is written by a thread of its own.
        warn: Told what was not written, and why.
    """

    root: Path
    ledger: Ledger
    metric: Metric
    junit: Path | None
    first_session: int
    page: LivePage | None = None
    warn: Callable[[str, Exception], object] = lambda what, error: None
    _next: float = 0.0

    def write(self, last: bool = False) -> None:
        """Bring every file up to date.

        Args:
            last: Nothing comes after it, so nothing is left for later.
        """
        began = time.monotonic()
        if last or began >= self._next:
            self._write()
            took = time.monotonic() - began
            self._next = time.monotonic() + (took / SHARE if took > QUICK_S else 0.0)
        if self.page is not None:
            if last:
                with self._attempt("the report page"):
                    self.page.finish()
            else:
                self.page.changed()

    @contextlib.contextmanager
    def _attempt(self, file: str) -> Iterator[None]:
        """Let neither a full disk, nor a locked ledger, nor a fault of ours end a night."""
        try:
            yield
        except Exception as error:
            self.warn(f"{file} is not written", error)

    def _write(self) -> None:
        from .. import snapshot
        from . import junit, tsv

        with self._attempt("results.tsv"):
            tsv.write(self.root / "results.tsv", self.ledger.slots())
        if self.junit is not None:
            with self._attempt(self.junit.name):
                slots, champions = self.ledger.slots(), self.ledger.champions()
                junit.write(
                    self.junit,
                    slots,
                    self.metric,
                    junit.facts_of(self.ledger, slots, champions, self.metric),
                    known=snapshot.take(self.ledger),
                    first_session=self.first_session,
                )
