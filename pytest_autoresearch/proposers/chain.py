"""Several proposers, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

from ..core.proposal import Context, Proposal, Proposer, ProposerExhausted


class Chain(Proposer):
    """Asks the first of several proposers until it is exhausted, then the next."""

    def __init__(self, members: Sequence[Proposer]) -> None:
        self.members = tuple(members)
        self.name = ",".join(member.name for member in members)
        self.slow = any(member.slow for member in members)
        self.bypass_queue = any(member.bypass_queue for member in members)
        self.fixed_order = members[0].fixed_order
        self._left = list(members)

    def propose(self, context: Context) -> Proposal:
        """Return a proposal of the first member that has one."""
        while True:
            self.fixed_order = self._left[0].fixed_order
            try:
                return self._left[0].propose(context)
            except ProposerExhausted:
                if len(self._left) == 1:
                    raise
                del self._left[0]

    def check(self) -> str:
        """Check all members, since each will be needed."""
        return "; ".join(filter(None, (member.check() for member in self.members)))

    def close(self) -> None:
        """Close all members."""
        for member in self.members:
            member.close()
