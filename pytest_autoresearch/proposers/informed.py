"""What a thinking proposer is told beside the ledger: the campaign's notes, and literature."""

from __future__ import annotations

from dataclasses import replace

from . import Context, Proposal, Proposer
from .memory import Notebook
from .papers import Library


class Informed:
    """Adds ideas, lessons and literature to what `main` is told."""

    def __init__(self, main: Proposer, notebook: Notebook, library: Library) -> None:
        self.name = main.name
        self.thinks = True
        self.recorded = getattr(main, "recorded", False)
        self._main, self._notebook, self._library = main, notebook, library

    def propose(self, context: Context) -> Proposal:
        """Return what `main` proposes; see `Proposer.propose`."""
        return self._main.propose(self.inform(context))

    def inform(self, context: Context) -> Context:
        """Return the context with what is in the files now."""
        return replace(
            context,
            ideas=self._notebook.ideas(),
            lessons=self._notebook.lessons(context.history),
            literature=self._library.text(context.slot),
        )

    def close(self) -> None:
        """Release `main`."""
        self._main.close()
