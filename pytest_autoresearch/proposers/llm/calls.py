"""Calling a provider that may be slow, overloaded or broken: one deadline, one retry loop.

The SDKs' own retries are switched off: one of them was measured to sleep a ``retry-after: 3600``
twice, to retry where no retry helps, and to multiply its timeout.
"""

from __future__ import annotations

import asyncio
import importlib
import time
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar, TypeVar

from ...core.money import NoPrice, SetAside, price
from ...core.proposal import (
    ProposalRefused,
    ProposerError,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from ...core.text import one_line as one_line
from ...ledger.spend import CostBudget
from .prompt import estimate_tokens

T = TypeVar("T")

START_S = 20.0
"""Seconds that a provider is waited for at the start of a session."""

REFUSALS = 3
"""Refusals in one session after which nothing more is asked."""


class Transient(Exception):
    """Worth another try.

    Attributes:
        after_s: Seconds that the provider asks to wait, or None.
        free: Whether it is certain that the try was not billed.
    """

    def __init__(self, reason: str, after_s: float | None = None, free: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.free = free


class Rejected(ProposerUnavailable):
    """An error instead of an answer: no other try would help, and none was billed."""

    free = True


@dataclass
class Heard:
    """What has come of an answer so far.

    Attributes:
        usage: As the provider told it last, or None.
        text: The answer's, thinking included.
    """

    usage: Usage | None = None
    text: str = ""


@dataclass(frozen=True)
class RetryPolicy:
    """How long a provider is waited for.

    Attributes:
        deadline_s: Seconds for one answer, retries and pauses included.
        attempt_s: Seconds for one try.
        silence_s: Seconds without a word within a try; a provider's pings are no words, and the
            newest models do not show what they think: they are silent until they have thought.
        pause_s: Seconds before the second try; doubles each time, up to a minute's worth. After
            that, or where more is asked for, what costs nothing is left to a pause of the night.
    """

    deadline_s: float = 1200.0
    attempt_s: float = 600.0
    silence_s: float = 480.0
    pause_s: float = 2.0


def persist(call: Callable[[], Awaitable[T]], patience: RetryPolicy, provider: str) -> T:
    """Call until there is an answer, the fault is final, or the deadline has passed.

    Args:
        call: One try; raises `Transient` where another may help.
        patience: Limits.
        provider: For messages.

    Raises:
        ProposerUnavailable: No answer in time; the attempt is not charged.
        ProposerError: Whatever else `call` raises.
    """
    return asyncio.run(_persist(call, patience, provider))


async def _persist(call: Callable[[], Awaitable[T]], patience: RetryPolicy, provider: str) -> T:
    ends = time.monotonic() + patience.deadline_s
    pause, longest, tries = patience.pause_s, 30 * patience.pause_s, 0
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
        away = trouble.free and wait >= longest
        if away or time.monotonic() + wait >= ends:
            asked = f", which asks to wait {trouble.after_s:g} s" if trouble.after_s else ""
            gone = ProposerUnavailable(
                f"{provider}{asked}: {trouble} ({tries} tries); the attempt is not charged"
            )
            gone.again_s = wait if trouble.free else None
            raise gone
        await asyncio.sleep(wait)
        pause = min(2 * pause, longest)


def verdict(status: int | None, said: str, error: Exception) -> Exception:
    """Say what an HTTP status is to us.

    Args:
        status: It, or None where there was no complete answer.
        said: What came with it, in one line.
        error: The SDK's exception, for its headers.
    """
    if status in (401, 403):
        return Rejected(f"the credentials were refused ({status}); check the key: {said}")
    if status == 402:
        return Rejected(f"the account cannot pay (402): {said}")
    if status == 404:
        return Rejected(f"not found (404); check --autoresearch-model: {said}")
    if status in (400, 413, 422):
        return Rejected(f"the request was refused ({status}): {said}")
    if isinstance(error, Warning):  # pytest was told to raise them
        return Rejected(f"{said}; choose another --autoresearch-model")
    # dropped connections, half bodies, pages of HTML, bad JSON: whatever it is called
    unsent = type(error.__cause__).__name__ in ("ConnectError", "ConnectTimeout")
    free = unsent or (status is not None and status >= 400)
    return Transient(f"{type(error).__name__}: {said}", _retry_after(error), free)


@asynccontextmanager
async def faults(judge: Callable[[Exception], Exception]) -> AsyncIterator[None]:
    """Turn what an SDK raises into what can be done about it."""
    try:
        yield
    except (Transient, ProposerError, TimeoutError):
        raise
    except Exception as error:
        raise judge(error) from None


def _retry_after(error: Any) -> float | None:
    headers = getattr(getattr(error, "response", None), "headers", {})
    for name, unit in (("retry-after-ms", 0.001), ("retry-after", 1.0)):
        with suppress(KeyError, ValueError):  # the header may also be a date
            return float(headers[name]) * unit
    return None


@dataclass
class Asker(ABC):
    """What the backends that ask a provider have in common.

    Attributes:
        model: Id of the model.
        effort: How hard it thinks, or None for its own default.
        client: ``module:factory`` of an async client, or None.
        purse: The campaign's money, or None.
        patience: Limits of one answer.
        rates: Dollars per million tokens of input and output; None: the list's.
    """

    model: str
    effort: str | None = None
    client: str | None = None
    cost_budget: CostBudget | None = None
    patience: RetryPolicy = field(default_factory=RetryPolicy)
    slow: bool = True
    rates: tuple[float, float] | None = None
    _refusals: int = 0
    _notice: str = ""

    vendor: ClassVar[str]
    """As the price list names it."""
    api: ClassVar[str]
    """For messages."""

    def close(self) -> None:  # noqa: B027
        """Nothing is held between calls."""

    def _willing(self) -> None:
        if self._refusals >= REFUSALS:
            raise ProposerExhausted(
                f"{self.model} declined {self._refusals} times in this session; choose another "
                "--autoresearch-model or proposer (the provider's terms may exclude such work)"
            )

    def _declined(self, usage: Usage, why: str) -> ProposalRefused:
        self._refusals += 1
        refusal = ProposalRefused(f"{self.model}: {why}")
        refusal.usage = usage
        return refusal

    def check(self) -> str:
        """Ask whether the model can be had, before anything is spent on a baseline.

        Returns:
            A fault that may pass, or the model's near end, in one line; or ''.

        Raises:
            Rejected: It cannot be had: no credentials, no such model, a server of another kind, or
                a cap on what has no price.
        """
        if self.cost_budget is not None and self.cost_budget.cap is not None:
            self._bound(Usage(self.model))
        try:
            self._check_model(replace(self.patience, deadline_s=START_S))
        except Rejected:
            raise
        except ProposerUnavailable as error:
            return f"{error}; it is asked again when its turn comes"
        return self._notice

    @abstractmethod
    def _check_model(self, patience: RetryPolicy) -> None:
        """Ask the provider for the model; raise what `check` raises."""

    def _buy(
        self,
        send: Callable[[Heard], Awaitable[T]],
        most: Usage,
        told: Callable[[T], Usage],
    ) -> tuple[T, Usage]:
        """Ask until there is an answer; set money aside before each try and settle it after.

        Args:
            send: One try; notes what has come so far.
            most: The most that one try may use.
            told: Reads what was used from the answer.
        """
        began, lost = time.monotonic(), 0.0

        async def attempt() -> tuple[T, int | None]:
            nonlocal lost
            reservation, heard = self._reserve(most), Heard()
            try:
                return await send(heard), reservation
            except (TimeoutError, asyncio.CancelledError):
                lost += self._price(most) or 0.0  # nobody knows how far it got: all of it is spent
                self._settle(reservation, self._price(most))
                raise
            except Exception as error:
                amount = self._broken(error, heard, most)
                lost += amount
                self._settle(reservation, amount)
                raise

        try:
            answer, reservation = persist(attempt, self.patience, self.api)
        except ProposerError as error:
            error.usage = Usage(self.model, cost_usd=lost) if lost else None
            raise
        usage = replace(told(answer), requests=1, seconds=time.monotonic() - began)
        cost = self._price(usage if usage.input_tokens or usage.output_tokens else most)
        self._settle(reservation, cost)
        if cost is not None:
            usage = replace(usage, cost_usd=cost + lost)
        return answer, usage

    def _broken(self, error: Exception, heard: Heard, most: Usage) -> float:
        """Return what a try may be billed that broke off: the prompt, and what had come."""
        if getattr(error, "free", False):
            return 0.0
        used = heard.usage or replace(most, output_tokens=0)
        output = max(used.output_tokens, estimate_tokens(heard.text))
        return self._price(replace(used, output_tokens=output)) or 0.0

    def _price(self, usage: Usage) -> float | None:
        try:
            return price(self.vendor, usage, self.rates)
        except NoPrice:
            return None

    def _bound(self, most: Usage) -> float:
        """Return the most that a try may cost, for a cap to be held."""
        if (amount := self._price(most)) is None:
            raise Rejected(
                f"the price of {self.model!r} ({self.vendor}) is unknown; give it with "
                "--autoresearch-price IN/OUT, or leave --autoresearch-max-cost out"
            )
        return amount

    def _settle(self, reservation: int | None, amount: float | None) -> None:
        if self.cost_budget is not None and reservation is not None and amount is not None:
            self.cost_budget.settle(reservation, amount)

    def _reserve(self, most: Usage) -> int | None:
        if self.cost_budget is None:
            return None
        if self.cost_budget.cap is None and self._price(most) is None:
            return None
        try:
            return self.cost_budget.reserve(self.model, self._bound(most))
        except SetAside as error:
            raise Transient(str(error), free=True) from None

    def _open(self, standard: Callable[[], Any]) -> Any:
        """Make a client that leaves retries to us, whoever's it is."""
        try:
            if not self.client:
                return standard()
            module, _, factory = self.client.partition(":")
            made = getattr(importlib.import_module(module), factory)()
            return made.with_options(max_retries=0) if hasattr(made, "with_options") else made
        except ImportError as error:
            raise Rejected(f"{error}; is the package installed?") from None
        except Exception as error:
            raise Rejected(f"the client cannot be made: {one_line(error)}") from None
