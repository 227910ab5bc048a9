"""What is rewritten from the ledger after every slot: ``results.tsv``, the junit log, the page."""

from __future__ import annotations

import contextlib
import time
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

    A file that cannot be written is left as it is: the ledger holds everything, and a full disk
    must not end a night.

    Attributes:
        root: The project.
        ledger: Of the campaign.
        metric: Of the experiment.
        junit: Where the junit log goes, if anywhere.
        first_session: This run's session; slots of earlier ones are marked.
        page: The HTML page, which is written by a thread of its own.
    """

    root: Path
    ledger: Ledger
    metric: Metric
    junit: Path | None
    first_session: int
    page: LivePage | None = None
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
                self.page.finish()
            else:
                self.page.changed()

    def _write(self) -> None:
        from .. import snapshot
        from . import junit, tsv

        slots, champions = self.ledger.slots(), self.ledger.champions()
        with contextlib.suppress(OSError):
            tsv.write(self.root / "results.tsv", slots)
        if self.junit is not None:
            with contextlib.suppress(OSError):
                junit.write(
                    self.junit,
                    slots,
                    self.metric,
                    junit.facts_of(self.ledger, slots, champions, self.metric),
                    known=snapshot.take(self.ledger),
                    first_session=self.first_session,
                )
