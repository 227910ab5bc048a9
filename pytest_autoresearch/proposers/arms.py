"""A control arm: every k-th slot goes to the search without a key.

Only so can a morning's report say whether the model earned its tokens.
"""

from __future__ import annotations

import contextlib

from . import Context, Proposal, Proposer, ProposerExhausted


class WithControl:
    """Asks `main`, and `control` for every `every`-th slot."""

    def __init__(self, main: Proposer, control: Proposer, every: int) -> None:
        """Combine two proposers.

        Raises:
            ValueError: `every` is less than 2: nothing would be left to `main`.
        """
        if every < 2:
            raise ValueError("a control arm takes every 2nd slot at most")
        self.name = main.name
        self.thinks = True
        self.recorded = getattr(main, "recorded", False)
        self._main, self._control, self._every = main, control, every

    def propose(self, context: Context) -> Proposal:
        """Ask the arm whose turn it is, `main` where `control` has nothing left to turn."""
        if context.slot % self._every == 0:
            with contextlib.suppress(ProposerExhausted):
                return self._control.propose(context)
        return self._main.propose(context)

    def close(self) -> None:
        """Release both."""
        self._main.close()
        self._control.close()
