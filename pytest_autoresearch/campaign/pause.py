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


WAIT_S = 0.25
"""Seconds between two looks of a step that waits for another process."""


def clock() -> float:
    """Return seconds since boot, suspended time included: the same in every process.

    Deadlines use it, since the wall clock may be set while a session runs.
    """
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class PastDeadline(ProposerExhausted):
    """The provider or device becomes available only after the deadline: the session failed."""


@dataclass(frozen=True)
class PauseControl:
    """Pauses that end early when the session has to stop.

    Attributes:
        stop_reason: Returns why no further attempt may start (deadline, STOP file, …), or ''.
        deadline: Time by `clock`, or None.
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
        until = clock() + seconds
        at = time.strftime("%a %H:%M:%S", time.localtime(time.time() + seconds))
        if self.deadline is not None and until >= self.deadline:
            early = self.deadline - clock() > SHORT_S
            error = PastDeadline if early else ProposerExhausted
            raise error(f"{reason}; {at} is after the deadline")
        line = f"paused until {at}: {reason}"
        self.say(line)
        self.on_pause(line)
        while (left := until - clock()) > 0:
            self.wait(min(left, TICK_S))
        self.on_pause("")

    def wait(self, seconds: float = WAIT_S) -> None:
        """Sleep a moment.

        Raises:
            ProposerExhausted: The session has to stop.
        """
        if stop := self.stop_reason():
            raise ProposerExhausted(stop)
        time.sleep(seconds)
