"""Wrappers of a slow proposer: drafts ahead, a control arm, and the campaign's notes."""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field, replace

from ..core.proposal import (
    Context,
    EditError,
    Proposal,
    ProposalInvalid,
    Proposer,
    ProposerExhausted,
    ProposerUnavailable,
)
from ..source.edits import apply
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

    @property
    def late(self) -> bool:
        """Whether a draft is still in the making."""
        return self._pending is not None and not self._pending.answer.done()

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


def rewrite(proposer: Proposer, context: Context, draft: Proposal, reason: str) -> Proposal:
    """Request a draft again that does not apply to the files of a new champion.

    Args:
        proposer: As for any proposal.
        context: Of the draft's attempt.
        draft: The draft.
        reason: Why it does not apply.

    Raises:
        ProposerError: There is no proposal that applies; carries the cost.
    """
    own = f"mutation-{context.attempt:04d}"
    history = [attempt for attempt in context.history if attempt.name != own]  # it is no repeat
    proposal = proposer.propose(replace(context, history=history, stale=(draft, reason)))
    try:
        apply(context.files, proposal.edits)
    except EditError as error:
        raise ProposalInvalid(str(error)).with_usage(proposal.usage) from None
    return replace(proposal, meta={**draft.meta, **proposal.meta})


def with_brief(proposal: Proposal, program: str, ours: Proposal | None = None) -> Proposal:
    """Record the brief of a proposal, and drop the origin of any that is not the harness's own."""
    brief = {"brief": hashlib.sha256(program.encode()).hexdigest()[:8]}
    origin = ours.origin if ours is not None else None
    return replace(proposal, meta={**proposal.meta, **brief}, origin=origin)


CONTROLS = 5
"""Attempts of a control arm after which it ends if none of them was kept."""


class WithControl(Proposer):
    """Asks `main`, and `control` for every `every`-th attempt until it has proved useless.

    The control answers at once, so its proposals are never drafted ahead, for an earlier champion.
    """

    slow = True

    def __init__(self, main: Proposer, control: Proposer, every: int) -> None:
        """Raise ValueError if `every` is less than 2, which would leave nothing to `main`."""
        if every < 2:
            raise ValueError("a control arm takes every 2nd attempt at most")
        self.name, self.fixed_order = main.name, main.fixed_order
        self._main, self._control, self._every = main, control, every

    def ahead(self, context: Context) -> bool:
        """Return False for an attempt of the control arm."""
        return not self._controls(context) and self._main.ahead(context)

    def propose(self, context: Context) -> Proposal:
        """Ask `control` in its turn, unless it has nothing left; else `main`."""
        if self._controls(context):
            with contextlib.suppress(ProposerExhausted):
                return self._control.propose(context)
        return self._main.propose(context)

    def _controls(self, context: Context) -> bool:
        """Return whether an attempt is the control's."""
        if context.attempt % self._every:
            return False
        verdicts = [a.verdict for a in context.history if a.proposer == self._control.name]
        return "keep" in verdicts or len(verdicts) < CONTROLS

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

    def ahead(self, context: Context) -> bool:
        """Return what `main` returns."""
        return self._main.ahead(context)

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
