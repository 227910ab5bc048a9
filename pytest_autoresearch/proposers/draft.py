"""The next proposal, thought of while a trial trains, so that no device waits for a model."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, wait
from dataclasses import dataclass, field

from . import Context, Proposal, Proposer, ProposerUnavailable


@dataclass
class _Thought:
    """One proposal in the making.

    Attributes:
        parent: Slot whose files it is made for.
        program: The brief that it is made from.
        answer: What it comes to.
        row: Where it is kept, once it is there.
        wanted: False once nobody waits for it any more.
    """

    parent: int
    program: str
    answer: Future[Proposal] = field(default_factory=Future)
    row: int | None = None
    wanted: bool = True


class Draft:
    """At most one proposal in the making; used by one thread.

    Args:
        drop: Forgets what was kept, by its row, and whether it was taken.
    """

    def __init__(self, drop: Callable[[int, bool], object]) -> None:
        self._thought: _Thought | None = None
        self._drop = drop

    @property
    def begun(self) -> bool:
        """Whether one is in the making, or waits to be taken."""
        return self._thought is not None

    def start(self, proposer: Proposer, context: Context, keep: Callable[[Proposal], int]) -> None:
        """Begin to ask, unless an answer is awaited already.

        Args:
            proposer: Must allow being called from another thread.
            context: As it stands now; what is in flight is in its history.
            keep: Writes an answer down where a killed process cannot lose it; returns its row.
        """
        if self._thought is not None:
            return
        thought = self._thought = _Thought(context.parent.slot_id, context.program)

        def think() -> None:
            try:
                proposal = proposer.propose(context)
                if thought.wanted:
                    thought.row = keep(proposal)
                thought.answer.set_result(proposal)
            except BaseException as error:
                thought.answer.set_exception(error)

        # a daemon: a session that ends waits for no provider
        threading.Thread(target=think, name="draft", daemon=True).start()

    def take(self, program: str) -> tuple[Proposal, int] | None:
        """Wait for the draft; whoever takes it writes it down as their own.

        Args:
            program: The brief as it is now; a draft that was made from another is forgotten.

        Returns:
            The proposal and the slot whose files it was made for; None if none was begun, or the
            provider could not answer, which is worth another call now.

        Raises:
            ProposalRefused, ProposalInvalid, ProposerExhausted: As `Proposer.propose`.
        """
        thought = self._thought
        if thought is not None and program == thought.program:
            wait([thought.answer])  # Ctrl-C leaves it to the ledger
            self._thought = None
            self._forget(thought, taken=True)
            try:
                return thought.answer.result(), thought.parent
            except ProposerUnavailable:
                return None
        self._thought = None
        if thought is not None:
            self._forget(thought, taken=False)
        return None

    def give_up(self) -> None:
        """Wait for nothing more; what is finished stays where it is kept."""
        if self._thought is not None:
            self._thought.wanted = False

    def _forget(self, thought: _Thought, taken: bool) -> None:
        thought.wanted = False
        if thought.row is not None:
            self._drop(thought.row, taken)
