"""The next proposal, thought of while a trial trains, so that no device waits for a model."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor

from . import Context, Proposal, Proposer, ProposerError, ProposerUnavailable


class Draft:
    """At most one proposal in the making; used by one thread."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="draft")
        self._future: Future[Proposal] | None = None
        self._parent = 0
        self._program = ""

    def start(self, proposer: Proposer, context: Context) -> None:
        """Begin to ask, unless an answer is awaited already.

        Args:
            proposer: Must allow being called from another thread.
            context: As it stands now; what is in flight is in its history.
        """
        if self._future is None:
            self._parent, self._program = context.parent.slot_id, context.program
            self._future = self._thread.submit(proposer.propose, context)

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
        future, self._future = self._future, None
        if future is None or program != self._program:
            return None
        try:
            return future.result(), self._parent
        except ProposerUnavailable:
            return None

    def ready(self) -> tuple[Proposal, int] | None:
        """Return a finished draft that nobody took, without waiting; give up one in the making."""
        future, self._future = self._future, None
        self._thread.shutdown(wait=False, cancel_futures=True)
        if future is None or not future.done() or future.cancelled():
            return None
        try:
            return future.result(), self._parent
        except ProposerError:
            return None
