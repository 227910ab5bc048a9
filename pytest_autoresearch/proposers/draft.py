"""The next proposal, thought of while a trial trains, so that no device waits for a model."""

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
class _Thought:
    """One proposal in the making.

    Attributes:
        parent: Attempt whose files it is made for.
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
        thought = self._thought = _Thought(context.parent.attempt_id, context.program)

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
            The proposal and the attempt whose files it was made for; None if none was begun, or the
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


class WithControl:
    """Asks `main`, and `control` for every `every`-th attempt."""

    def __init__(self, main: Proposer, control: Proposer, every: int) -> None:
        """Combine two proposers.

        Raises:
            ValueError: `every` is less than 2: nothing would be left to `main`.
        """
        if every < 2:
            raise ValueError("a control arm takes every 2nd attempt at most")
        self.name = main.name
        self.slow = True
        self.recorded = getattr(main, "recorded", False)
        self._main, self._control, self._every = main, control, every

    def propose(self, context: Context) -> Proposal:
        """Ask the arm whose turn it is, `main` where `control` has nothing left to turn."""
        if context.attempt % self._every == 0:
            with contextlib.suppress(ProposerExhausted):
                return self._control.propose(context)
        return self._main.propose(context)

    def close(self) -> None:
        """Release both."""
        self._main.close()
        self._control.close()


class WithNotes:
    """Adds ideas, lessons and literature to what `main` is told."""

    def __init__(self, main: Proposer, notebook: Notebook, library: Library) -> None:
        self.name = main.name
        self.slow = True
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
            literature=self._library.text(context.attempt),
        )

    def close(self) -> None:
        """Release `main`."""
        self._main.close()
