"""A rough forecast of what a session's proposals will cost, before any of them is requested."""

from __future__ import annotations

from ...core.experiment import Experiment
from ...core.money import NoPrice, price, prices_version
from ...core.proposal import Context, PastAttempt, Proposer, Usage
from .prompt import HISTORY, OLDER_KEEPS, compose, estimate_tokens
from .provider import LLMProposer

ANSWER_TOKENS = 4_000
"""Assumed size of an answer, thinking included."""

LINE_TOKENS = 60
"""Assumed size of one attempt in the history."""

MISSES = 0.2
"""Assumed share of calls that miss the provider's cache: the first, and those after a keep."""


def first_context(
    experiment: Experiment, program: str, files: dict[str, str], fixed: dict[str, str]
) -> Context:
    """Return the context of a campaign's first proposal, as far as it is known beforehand."""
    baseline = PastAttempt(
        1, "baseline-1", None, "baseline", "", "", "baseline", "", 1.0, None, None, 0, 0, {},
        lambda: files,
    )  # fmt: skip
    return Context(experiment, program, 1, 0, baseline, files, fixed, [baseline], baseline, 0.01)


def forecast(
    proposer: Proposer, context: Context, attempts: int, control: int = 0, known: int = 0
) -> str:
    """Forecast the cost of a session's proposals in one line.

    Args:
        proposer: The proposer, without its control arm.
        context: Context of the first proposal.
        attempts: Attempts of the session.
        control: Every how many attempts the control arm proposes; 0: never.
        known: Attempts that the history holds already.

    Raises:
        Rejected: The prompt is longer than the model's window.
    """
    own = attempts - (attempts // control if control else 0)
    what = f"{attempts} attempts"
    if own != attempts:
        what += f", at least {own} of them {proposer.name}'s"
    if not isinstance(proposer, LLMProposer) or not proposer.model:
        return f"proposals: {what}, unknown price ({proposer.name})"
    model, rates = proposer.model, proposer.rates
    prompt = compose(context, proposer.limit_tokens, whole=proposer.whole)
    proposer.check_fits(prompt)
    lines = min(known + attempts // 2, HISTORY + OLDER_KEEPS)
    stable = sum(map(estimate_tokens, (*prompt.system, *prompt.user[:1])))
    rest = sum(map(estimate_tokens, prompt.user[1:])) + LINE_TOKENS * lines
    hit = Usage(model, input_tokens=rest, cache_read_tokens=stable, output_tokens=ANSWER_TOKENS)
    miss = Usage(model, input_tokens=rest, cache_write_tokens=stable, output_tokens=ANSWER_TOKENS)
    try:
        on_hit, on_miss = (price(proposer.vendor, usage, rates) for usage in (hit, miss))
    except NoPrice:
        return f"proposals: {what}, unknown price ({model} has no list price)"
    cost = own * ((1 - MISSES) * on_hit + MISSES * on_miss)
    source = prices_version() if rates is None else "your price"
    return (
        f"proposals: {what}, about ${cost:.2f} ({model}, {source}; prompts of "
        f"{stable + rest:,} tokens by an upper estimate, answers of {ANSWER_TOKENS:,} assumed)"
    )
