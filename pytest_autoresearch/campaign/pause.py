"""Pause a session while an LLM provider or a device is temporarily unavailable."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass

from ..core.proposal import ProposerExhausted

LONGEST_S = 12 * 3600.0
"""Longest total pause of one attempt, in seconds; bounds sessions without a deadline."""

SHORT_S = 600.0
"""Seconds before the deadline in which an unavailable provider counts as a normal end."""

TICK_S = 2.0
"""Seconds between two looks at the stop conditions, each of which reads the ledger."""


class PastDeadline(ProposerExhausted):
    """The provider or device becomes available only after the deadline: the session failed."""


@dataclass(frozen=True)
class PauseControl:
    """Pauses that end early when the session has to stop.

    Attributes:
        stop_reason: Returns why no further attempt may start (deadline, STOP file, …), or ''.
        deadline: Unix seconds, or None.
        say: Prints a line.
        on_pause: Called with that line when a pause begins, and with '' when it ends.
    """

    stop_reason: Callable[[], str] = lambda: ""
    deadline: float | None = None
    say: Callable[[str], object] = lambda line: None
    on_pause: Callable[[str], object] = lambda line: None

    def pause(self, seconds: float, reason: str) -> None:
        """Sleep, interruptible by Ctrl-C.

        Raises:
            PastDeadline: The pause would end after a deadline that is more than `SHORT_S` away.
            ProposerExhausted: The session has to stop, or a nearer deadline comes first.
        """
        until = time.time() + seconds
        at = time.strftime("%a %H:%M:%S", time.localtime(until))
        if self.deadline is not None and until >= self.deadline:
            early = self.deadline - time.time() > SHORT_S
            error = PastDeadline if early else ProposerExhausted
            raise error(f"{reason}; {at} is after the deadline")
        line = f"paused until {at}: {reason}"
        self.say(line)
        self.on_pause(line)
        while (left := until - time.time()) > 0:
            if stop := self.stop_reason():
                raise ProposerExhausted(stop)
            time.sleep(min(left, TICK_S))
        self.on_pause("")
