"""A night goes on although a provider or a device is away for a while: it pauses."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..core.proposal import ProposerExhausted

LONGEST_S = 12 * 3600.0
"""Seconds that one attempt waits for a provider; a night without a deadline must end, too."""

SHORT_S = 600.0
"""Seconds at the end of a night that may be lost without its being called a failure."""

TICK_S = 2.0
"""How often a pause looks whether the night is over; a look reads the ledger (0.1 s for 1,000
attempts)."""


class PastDeadline(ProposerExhausted):
    """What is away comes back too late for this night: it ends, and not in order."""


def _nothing(line: str) -> None:
    pass


@dataclass(frozen=True)
class Night:
    """What a pause heeds, and who hears of it.

    Attributes:
        over: Says why nothing more should begin (deadline, STOP file, …), or ''.
        ends: Unix seconds of the deadline, or None.
        say: Shows a person a line.
        paused: Hears the same when a pause begins, and '' when it is over.
    """

    over: Callable[[], str] = lambda: ""
    ends: float | None = None
    say: Callable[[str], None] = _nothing
    paused: Callable[[str], None] = _nothing

    def pause(self, seconds: float, why: str) -> None:
        """Wait; Ctrl-C is heard at once.

        Raises:
            PastDeadline: It would be longer than the night; nothing was waited for.
            ProposerExhausted: The night is over, or as good as over.
        """
        until = time.time() + seconds
        at = time.strftime("%a %H:%M:%S", time.localtime(until))
        if self.ends is not None and until >= self.ends:
            lost = self.ends - time.time() > SHORT_S
            end = PastDeadline if lost else ProposerExhausted
            raise end(f"{why}; {at} is after the deadline")
        self.say(line := f"paused until {at}: {why}")
        self.paused(line)
        while (left := until - time.time()) > 0:
            if over := self.over():
                raise ProposerExhausted(over)
            time.sleep(min(left, TICK_S))
        self.paused("")
