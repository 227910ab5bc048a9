"""Calling a provider that may be slow, overloaded or broken: one deadline, one retry loop.

The SDKs' own retries are switched off: one of them was measured to sleep a ``retry-after: 3600``
twice, to retry where no retry helps, and to multiply its timeout.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import TypeVar

from . import ProposerUnavailable

T = TypeVar("T")


class Transient(Exception):
    """Worth another try.

    Attributes:
        after_s: Seconds that the provider asks to wait, or None.
    """

    def __init__(self, reason: str, after_s: float | None = None) -> None:
        super().__init__(reason)
        self.after_s = after_s


@dataclass(frozen=True)
class Patience:
    """How long a provider is waited for.

    Attributes:
        deadline_s: Seconds for one answer, retries and pauses included.
        attempt_s: Seconds for one try.
        silence_s: Seconds without a word within a try; a provider's pings are no words.
        pause_s: Seconds before the second try; doubles each time, up to a minute's worth.
    """

    deadline_s: float = 1200.0
    attempt_s: float = 600.0
    silence_s: float = 180.0
    pause_s: float = 2.0


def persist(call: Callable[[], Awaitable[T]], patience: Patience, provider: str) -> T:
    """Call until there is an answer, the fault is final, or the deadline has passed.

    Args:
        call: One try; raises `Transient` where another may help.
        patience: Limits.
        provider: For messages.

    Raises:
        ProposerUnavailable: No answer in time; the slot is not charged.
        ProposerError: Whatever else `call` raises.
    """
    return asyncio.run(_persist(call, patience, provider))


async def _persist(call: Callable[[], Awaitable[T]], patience: Patience, provider: str) -> T:
    ends = time.monotonic() + patience.deadline_s
    pause, tries = patience.pause_s, 0
    while True:
        tries += 1
        left = ends - time.monotonic()
        try:
            async with asyncio.timeout(min(left, patience.attempt_s)):
                return await call()
        except TimeoutError:
            trouble = Transient("no complete answer in time")
        except Transient as error:
            trouble = error
        wait = max(pause, trouble.after_s or 0.0)
        if time.monotonic() + wait >= ends:
            asked = f", which asks to wait {trouble.after_s:g} s" if trouble.after_s else ""
            raise ProposerUnavailable(
                f"{provider}{asked}: {trouble} ({tries} tries); the slot is not charged"
            )
        await asyncio.sleep(wait)
        pause = min(2 * pause, 30 * patience.pause_s)
