"""Calls to a provider that may be slow, overloaded or broken: one deadline, one retry loop.

The SDKs' own retries are switched off: one of them was measured to sleep a ``retry-after: 3600``
twice, to retry where no retry helps, and to multiply its timeout.
"""

from __future__ import annotations

import asyncio
import json
import re
import time
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from ...core.proposal import ProposerError, ProposerUnavailable
from ...core.text import one_line

T = TypeVar("T")


class Transient(Exception):
    """A fault that another try may get past.

    Attributes:
        after_s: Seconds that the provider asks to wait, or None.
        free: Whether the try was certainly not billed.
    """

    def __init__(self, reason: str, after_s: float | None = None, free: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.free = free


class Rejected(ProposerUnavailable):
    """An error response that no other try would change; not billed."""

    free = True


class TooLong(Rejected):
    """The server says that the request does not fit its window of so many tokens."""

    def __init__(self, message: str, window: int) -> None:
        super().__init__(message)
        self.window = window


_WINDOW = re.compile(r"(?:context (?:length|window|size)|n_ctx\b)\D{0,24}(\d{3,8})")

_HERE = str(Path(__file__).parent)


@dataclass(frozen=True)
class RetryPolicy:
    """Time limits of one answer.

    Attributes:
        deadline_s: Seconds for the answer, retries and pauses included.
        attempt_s: Seconds for one try.
        silence_s: Seconds without an event within a try. Pings do not count; the newest models
            send nothing while they think.
        pause_s: Seconds before the second try; doubles each time, up to 30 times as much. A longer
            wait, if the try was free, is left to the campaign, which pauses.
    """

    deadline_s: float = 1200.0
    attempt_s: float = 600.0
    silence_s: float = 480.0
    pause_s: float = 2.0


def retry(call: Callable[[], Awaitable[T]], policy: RetryPolicy, provider: str) -> T:
    """Call until there is an answer, the fault is final, or the deadline has passed.

    Args:
        call: One try; raises `Transient` if another may help.
        policy: Limits.
        provider: Its name, for messages.

    Raises:
        ProposerUnavailable: No answer in time; the attempt is not charged.
        ProposerError: Whatever else `call` raises.
    """
    return asyncio.run(_retry(call, policy, provider))


async def _retry(call: Callable[[], Awaitable[T]], policy: RetryPolicy, provider: str) -> T:
    deadline = time.monotonic() + policy.deadline_s
    pause, longest, tries = policy.pause_s, 30 * policy.pause_s, 0
    while True:
        tries += 1
        left = deadline - time.monotonic()
        try:
            async with asyncio.timeout(min(left, policy.attempt_s)):
                return await call()
        except TimeoutError:
            fault = Transient("no complete answer in time")
        except Transient as error:
            fault = error
        wait = max(pause, fault.after_s or 0.0)
        if (fault.free and wait >= longest) or time.monotonic() + wait >= deadline:
            request = f", which asks to wait {fault.after_s:g} s" if fault.after_s else ""
            unavailable = ProposerUnavailable(
                f"{provider}{request}: {fault} ({tries} tries); the attempt is not charged"
            )
            unavailable.again_s = wait if fault.free else None
            raise unavailable
        await asyncio.sleep(wait)
        pause = min(2 * pause, longest)


def words_of(error: Exception) -> str:
    """Return what the server says of an error, in one line, or else the SDK's text."""
    said = getattr(error, "body", None)
    for name in ("error", "message", "detail"):
        said = said.get(name) or said if isinstance(said, dict) else said
    return one_line(said if isinstance(said, str) else json.dumps(said) if said else error)


def classify(error: Exception) -> Exception:
    """Return `Rejected` or `Transient` for an exception of an SDK."""
    status, message = getattr(error, "status_code", None), one_line(error)
    if status in (401, 403):
        return Rejected(f"the credentials were refused ({status}); check the key: {message}")
    if status == 402:
        return Rejected(f"the account cannot pay (402): {message}")
    if status == 404:
        return Rejected(f"not found (404); check --autoresearch-model: {message}")
    if status in (400, 413, 422):
        message = words_of(error)
        if window := _WINDOW.search(f"{message} {getattr(error, 'body', '')}"):
            hint = "; state the window of the model with --autoresearch-context"
            return TooLong(f"the prompt is too long ({status}): {message}{hint}", int(window[1]))
        return Rejected(f"the request was refused ({status}): {message}")
    if isinstance(error, Warning):  # pytest turns warnings into errors
        return Rejected(f"{message}; choose another --autoresearch-model")
    # dropped connections, half bodies, pages of HTML, bad JSON
    unsent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
    free = unsent or (status is not None and status >= 400)
    return Transient(f"{type(error).__name__}: {message}", _retry_after(error), free)


@asynccontextmanager
async def translate(convert: Callable[[Exception], Exception]) -> AsyncIterator[None]:
    """Convert exceptions of an SDK; ours pass, and faults of our own code are not retried."""
    try:
        yield
    except (Transient, ProposerError, TimeoutError):
        raise
    except Exception as error:
        *_, (frame, line) = traceback.walk_tb(error.__traceback__)
        if frame.f_code.co_filename.startswith(_HERE):
            place = f"{Path(frame.f_code.co_filename).name}, line {line}"
            fault = f"{type(error).__name__}: {one_line(error)} ({place})"
            raise ProposerUnavailable(
                f"an answer that pytest-autoresearch cannot read: {fault}; please report it"
            ) from error
        raise convert(error) from None


def _retry_after(error: Any) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):  # the header may also be a date
            return float(headers[name]) * unit
    return None
