"""Wrappers of a slow proposer: drafts ahead, a control arm, and the campaign's notes."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace

from ..core.proposal import Context, Proposal, Proposer, ProposerExhausted, ProposerUnavailable
from .memory import Notebook
from .papers import Library


@dataclass
class _Pending:
    """A draft that was requested.

    Attributes:
        parent: Attempt whose files it is made for.
        program: The brief that it is made from.
        answer: Resolves to the proposal.
        row: Ledger row that holds it once it is finished.
        wanted: False once it is abandoned.
    """

    parent: int
    program: str
    answer: Future[Proposal] = field(default_factory=Future)
    row: int | None = None
    wanted: bool = True


class Draft:
    """At most one proposal that is requested while a run trains; used by one thread.

    Args:
        drop: Deletes a stored draft, by its row and whether it was used.
    """

    def __init__(self, drop: Callable[[int, bool], object]) -> None:
        self._pending: _Pending | None = None
        self._drop = drop

    @property
    def begun(self) -> bool:
        """Whether a draft is in the making or waits to be taken."""
        return self._pending is not None

    def start(self, proposer: Proposer, context: Context, keep: Callable[[Proposal], int]) -> None:
        """Request a draft in another thread, unless one is pending.

        Args:
            proposer: Must allow calls from another thread.
            context: As it is now; its history holds what is in flight.
            keep: Stores a proposal where a killed process cannot lose it; returns its row.
        """
        if self._pending is not None:
            return
        draft = self._pending = _Pending(context.parent.attempt_id, context.program)

        def request() -> None:
            try:
                proposal = proposer.propose(context)
                if draft.wanted:
                    draft.row = keep(proposal)
                draft.answer.set_result(proposal)
            except BaseException as error:
                draft.answer.set_exception(error)

        # a daemon, so that the end of a session does not wait for a provider
        threading.Thread(target=request, name="draft", daemon=True).start()

    def take(self, program: str) -> tuple[Proposal, int] | None:
        """Wait for the draft and remove it; the caller records it.

        Args:
            program: The current brief; a draft made from another is dropped.

        Returns:
            The proposal and the attempt whose files it is for; None without one, or if the provider
            was unavailable.

        Raises:
            ProposalRefused, ProposalInvalid, ProposerExhausted: As `Proposer.propose`.
        """
        draft = self._pending
        current = draft is not None and program == draft.program
        if draft is not None and current:
            wait([draft.answer])  # an interrupt here leaves the draft to the ledger
        self._pending = None
        if draft is None:
            return None
        draft.wanted = False
        if draft.row is not None:
            self._drop(draft.row, current)
        if current:
            with contextlib.suppress(ProposerUnavailable):
                return draft.answer.result(), draft.parent
        return None

    def give_up(self) -> None:
        """Stop waiting; a finished draft stays in the ledger."""
        if self._pending is not None:
            self._pending.wanted = False


class WithControl(Proposer):
    """Asks `main`, and `control` for every `every`-th attempt."""

    slow = True

    def __init__(self, main: Proposer, control: Proposer, every: int) -> None:
        """Raise ValueError if `every` is less than 2, which would leave nothing to `main`."""
        if every < 2:
            raise ValueError("a control arm takes every 2nd attempt at most")
        self.name, self.fixed_order = main.name, main.fixed_order
        self._main, self._control, self._every = main, control, every

    def propose(self, context: Context) -> Proposal:
        """Ask `control` in its turn, unless it has nothing left; else `main`."""
        if context.attempt % self._every == 0:
            with contextlib.suppress(ProposerExhausted):
                return self._control.propose(context)
        return self._main.propose(context)

    def close(self) -> None:
        """Close both."""
        self._main.close()
        self._control.close()


class WithNotes(Proposer):
    """Adds ideas, lessons and literature to the context of `main`."""

    slow = True

    def __init__(self, main: Proposer, notebook: Notebook, library: Library) -> None:
        self.name, self.fixed_order = main.name, main.fixed_order
        self._main, self._notebook, self._library = main, notebook, library

    def propose(self, context: Context) -> Proposal:
        """Return the proposal of `main`; see `Proposer.propose`."""
        return self._main.propose(self.with_notes(context))

    def with_notes(self, context: Context) -> Context:
        """Return the context with the current notes."""
        return replace(
            context,
            ideas=self._notebook.ideas(),
            lessons=self._notebook.lessons(context.history),
            literature=self._library.text(context.attempt),
        )

    def close(self) -> None:
        """Close `main`."""
        self._main.close()
