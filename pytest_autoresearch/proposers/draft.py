"""The next proposal, thought of while a trial trains, so that no device waits for a model."""

from __future__ import annotations

import threading
from concurrent.futures import Future, wait

from . import Context, Proposal, Proposer, ProposerUnavailable


class Draft:
    """At most one proposal in the making; used by one thread.

    Attributes:
        program: The brief that the latest was made from.
    """

    def __init__(self) -> None:
        self._future: Future[Proposal] | None = None
        self._parent = 0
        self.program = ""

    @property
    def begun(self) -> bool:
        """Whether one is in the making, or waits to be taken."""
        return self._future is not None

    def start(self, proposer: Proposer, context: Context) -> None:
        """Begin to ask, unless an answer is awaited already.

        Args:
            proposer: Must allow being called from another thread.
            context: As it stands now; what is in flight is in its history.
        """
        if self._future is not None:
            return
        self._parent, self.program = context.parent.slot_id, context.program
        future = self._future = Future[Proposal]()

        def think() -> None:
            try:
                future.set_result(proposer.propose(context))
            except BaseException as error:
                future.set_exception(error)

        # a daemon: a session that ends waits for no provider
        threading.Thread(target=think, name="draft", daemon=True).start()

    def take(self, program: str) -> tuple[Proposal, int] | None:
        """Wait for the draft.

        Args:
            program: The brief as it is now; a draft that was made from another is forgotten.

        Returns:
            The proposal and the slot whose files it was made for; None if none was begun, or the
            provider could not answer, which is worth another call now.

        Raises:
            ProposalRefused, ProposalInvalid, ProposerExhausted: As `Proposer.propose`.
        """
        future, current = self._future, program == self.program
        if future is not None and current:
            wait([future])  # Ctrl-C leaves it to `ready`
        self._future = None
        if future is None or not current:
            return None
        try:
            return future.result(), self._parent
        except ProposerUnavailable:
            return None

    def ready(self) -> tuple[Proposal, int] | None:
        """Return a finished draft that nobody took, without waiting; give up one in the making."""
        future, self._future = self._future, None
        if future is None or not future.done() or future.exception() is not None:
            return None
        return future.result(), self._parent
