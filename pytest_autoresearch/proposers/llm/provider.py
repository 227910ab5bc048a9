"""The part of a language-model proposer that all providers share: prompt, money, refusals."""

from __future__ import annotations

import asyncio
import importlib
import json
import re
import time
from abc import abstractmethod
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, ClassVar, Literal, TypeVar

from ...core.money import NoPrice, SetAside, price
from ...core.proposal import (
    Context,
    Proposal,
    ProposalInvalid,
    ProposalRefused,
    Proposer,
    ProposerError,
    ProposerExhausted,
    ProposerUnavailable,
    Usage,
)
from ...core.text import one_line
from ...ledger.spend import CostBudget
from .calls import Rejected, RetryPolicy, TooLong, Transient, retry, translate
from .prompt import LIMIT_TOKENS, Prompt, compose, estimate_tokens
from .repair import Reply, Turn, converse

T = TypeVar("T")

_UNFINISHED = re.compile(
    "length|max|limit|window|filter|safety|recitation|tool|function|pause", re.IGNORECASE
)
"""Finish reasons of an answer that is not complete; servers have many words for those that are."""

START_S = 20.0
"""Seconds to wait for a provider at the start of a session."""

REFUSALS = 3
"""Refusals in one session after which the model is not asked again."""

MAX_TOKENS = 32_000
"""Bound on one answer."""


@dataclass
class PartialAnswer:
    """The part of an answer that has arrived.

    Attributes:
        usage: As last reported, or None.
        text: Text and thinking.
    """

    usage: Usage | None = None
    text: str = ""


@dataclass(frozen=True)
class Answer:
    """A complete response.

    Attributes:
        text: The model's text.
        usage: As reported by the server; zeros if it reports none.
        finish: Why it ended, in the provider's word.
        refusal: Reason why the model declined, or ''.
    """

    text: str
    usage: Usage
    finish: str
    refusal: str = ""


@dataclass
class LLMProposer(Proposer):
    """Proposes a language model's answers.

    Attributes:
        model: Id of the model.
        effort: Reasoning effort, or None for the model's default.
        client: ``module:factory`` of an async client, or None.
        cost_budget: The campaign's money, or None.
        retry_policy: Time limits of one answer.
        rates: Dollars per million tokens of input and output; None: the list price.
        max_tokens: Bound on one answer; lowered to the model's.
        context: Tokens of the model's window, prompt and answer together; None: as the server says.
        answer: Form of the answers: SEARCH/REPLACE blocks or whole files.
        limit_tokens: Bound on a prompt, from the window; None: the default.
    """

    model: str
    effort: str | None = None
    client: str | None = None
    cost_budget: CostBudget | None = None
    retry_policy: RetryPolicy = field(default_factory=RetryPolicy)
    rates: tuple[float, float] | None = None
    max_tokens: int = MAX_TOKENS
    context: int | None = None
    answer: Literal["blocks", "whole"] = "blocks"
    limit_tokens: int | None = None
    _window: int | None = None
    _checked: bool = False
    _refusals: int = 0
    _warning: str = ""

    slow = True
    vendor: ClassVar[str]
    """Name in the price list."""
    api: ClassVar[str]
    """Name in messages."""

    # ------------------------------------------------------------------ what a provider adds

    @abstractmethod
    def _default_client(self) -> Any:
        """Return the SDK's async client, without retries of its own."""

    @abstractmethod
    def _check_model(self, policy: RetryPolicy) -> None:
        """Look the model up, and its limits; raise what `check` raises."""

    @abstractmethod
    def _request(self, prompt: Prompt, turns: Sequence[Turn]) -> dict[str, Any]:
        """Return the request of one turn."""

    @abstractmethod
    def _prompt_usage(self, tokens: int) -> Usage:
        """Return the most expensive usage of a prompt of so many tokens."""

    @abstractmethod
    async def _stream(self, client: Any, request: dict[str, Any], partial: PartialAnswer) -> Answer:
        """Send a request and read the answer, noting in `partial` what has arrived."""

    @abstractmethod
    def _classify(self, error: Exception) -> Exception:
        """Return `Rejected` or `Transient` for an exception of the SDK."""

    # ------------------------------------------------------------------ the proposer

    def check(self) -> str:
        """Check that the model is available, before anything is spent on a baseline.

        Returns:
            A fault that may pass, or the model's coming end, in one line; or ''.

        Raises:
            Rejected: It is not: no credentials, no such model, a server with another API, or a cap
                on a model without a price.
        """
        if self.cost_budget is not None and self.cost_budget.cap is not None:
            self._bound(Usage(self.model))
        try:
            self._look_up(replace(self.retry_policy, deadline_s=START_S))
        except Rejected:
            raise
        except ProposerUnavailable as error:
            return f"{error}; it is asked again when its turn comes"
        return self._warning

    def _look_up(self, policy: RetryPolicy) -> None:
        self._check_model(policy)
        if self.context is not None:
            self.fit(self.context)
        self._checked = True

    @property
    def whole(self) -> bool:
        """Whether answers are whole files."""
        return self.answer == "whole"

    def fit(self, window: int) -> None:
        """Divide a window of so many tokens: half for an answer, an eighth for repairs."""
        self._window = window
        self.max_tokens = min(self.max_tokens, window // 2)
        self.limit_tokens = min(LIMIT_TOKENS, window * 3 // 8)

    def check_fits(self, prompt: Prompt) -> None:
        """Check that a prompt, composed for the window, fits it.

        Raises:
            Rejected: It does not; the brief and the files alone are longer.
        """
        tokens = sum(map(estimate_tokens, (*prompt.system, *prompt.user)))
        if self._window is not None and tokens > self._window:
            raise Rejected(
                f"brief and files take about {tokens:,} tokens, and the window of {self.model} has "
                f"{self._window:,}; serve it with a larger one (--autoresearch-context states it)"
            )

    def propose(self, context: Context) -> Proposal:
        """Return the model's proposal; see `Proposer.propose`."""
        if self._refusals >= REFUSALS:
            raise ProposerExhausted(
                f"{self.model} declined {self._refusals} times in this session; choose another "
                "--autoresearch-model or proposer (the provider's terms may exclude such work)"
            )
        if not self._checked:
            self._look_up(self.retry_policy)
        while True:
            prompt = self._compose(context)
            self.check_fits(prompt)
            try:
                return converse(partial(self._ask, prompt), context, self.name, whole=self.whole)
            except TooLong as error:
                if self._window is not None and error.window >= self._window:
                    raise
                self.fit(error.window)

    def _compose(self, context: Context) -> Prompt:
        return compose(context, self.limit_tokens, whole=self.whole)

    def _ask(self, prompt: Prompt, turns: Sequence[Turn]) -> Reply:
        request = self._request(prompt, turns)
        tokens = estimate_tokens(json.dumps(request))
        most = replace(self._prompt_usage(tokens), output_tokens=self.max_tokens)
        answer, usage = self._pay(request, most)
        if answer.refusal:
            self._refusals += 1
            raise ProposalRefused(f"{self.model}: {answer.refusal}").with_usage(usage)
        if _UNFINISHED.search(answer.finish):
            raise ProposalInvalid(
                f"the answer ended with {answer.finish} after {usage.output_tokens} tokens"
            ).with_usage(usage)
        return Reply(answer.text, usage)

    # ------------------------------------------------------------------ the network

    def _retry(self, use: Callable[[Any], Awaitable[T]], policy: RetryPolicy) -> T:
        """Call `use` with a client until there is an answer; see `retry`."""
        return retry(lambda: self._call(use), policy, self.api)

    async def _call(self, use: Callable[[Any], Awaitable[T]]) -> T:
        async with translate(self._classify), self._new_client() as client:
            return await use(client)

    def _new_client(self) -> Any:
        """Return a client that leaves retries to us."""
        try:
            if not self.client:
                return self._default_client()
            module, _, factory = self.client.partition(":")
            client = getattr(importlib.import_module(module), factory)()
            return client.with_options(max_retries=0) if hasattr(client, "with_options") else client
        except ImportError as error:
            raise Rejected(f"{error}; is the package installed?") from None
        except Exception as error:
            raise Rejected(f"the client cannot be made: {one_line(error)}") from None

    # ------------------------------------------------------------------ money

    def _pay(self, request: dict[str, Any], most: Usage) -> tuple[Answer, Usage]:
        """Ask until there is an answer; reserve money before each try and settle it after.

        Args:
            request: The request.
            most: The most that one try may use.
        """
        start, lost = time.monotonic(), 0.0

        async def attempt() -> tuple[Answer, int | None]:
            nonlocal lost
            reservation, arrived = self._reserve(most), PartialAnswer()
            try:
                answer = await self._call(lambda client: self._stream(client, request, arrived))
                return answer, reservation
            except (TimeoutError, asyncio.CancelledError):
                lost += self._price(most) or 0.0  # its progress is unknown: count all of it
                self._settle(reservation, self._price(most))
                raise
            except Exception as error:
                amount = self._cost_of_failure(error, arrived, most)
                lost += amount
                self._settle(reservation, amount)
                raise

        try:
            answer, reservation = retry(attempt, self.retry_policy, self.api)
        except ProposerError as error:
            error.usage = Usage(self.model, cost_usd=lost) if lost else None
            raise
        usage = replace(answer.usage, requests=1, seconds=time.monotonic() - start)
        cost = self._price(usage if usage.input_tokens or usage.output_tokens else most)
        self._settle(reservation, cost)
        if cost is not None:
            usage = replace(usage, cost_usd=cost + lost)
        return answer, usage

    def _cost_of_failure(self, error: Exception, partial: PartialAnswer, most: Usage) -> float:
        """Return what a broken try may be billed: the prompt, and the part that arrived."""
        if getattr(error, "free", False):
            return 0.0
        used = partial.usage or replace(most, output_tokens=0)
        output = max(used.output_tokens, estimate_tokens(partial.text))
        return self._price(replace(used, output_tokens=output)) or 0.0

    def _price(self, usage: Usage) -> float | None:
        try:
            return price(self.vendor, usage, self.rates)
        except NoPrice:
            return None

    def _bound(self, most: Usage) -> float:
        """Return the price of `most`, without which a cap cannot hold."""
        if (amount := self._price(most)) is None:
            raise Rejected(
                f"the price of {self.model!r} ({self.vendor}) is unknown; give it with "
                "--autoresearch-price IN/OUT, or leave --autoresearch-max-cost out"
            )
        return amount

    def _reserve(self, most: Usage) -> int | None:
        budget = self.cost_budget
        if budget is None or (budget.cap is None and self._price(most) is None):
            return None
        try:
            return budget.reserve(self.model, self._bound(most))
        except SetAside as error:
            raise Transient(str(error), free=True) from None

    def _settle(self, reservation: int | None, amount: float | None) -> None:
        if self.cost_budget is not None and reservation is not None and amount is not None:
            self.cost_budget.settle(reservation, amount)
