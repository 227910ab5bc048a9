"""What a session's proposals will cost, roughly, before any of them is asked for."""

from __future__ import annotations

from ...core.experiment import Experiment
from ...core.money import NoPrice, price, prices_version
from ...core.proposal import Context, PastAttempt, Proposer, Usage
from .prompt import compose, estimate_tokens

ANSWER_TOKENS = 4_000
"""Assumed of one answer, thinking included."""

LINE_TOKENS = 60
"""Of one attempt in the history."""

MISSES = 0.2
"""Share of calls that find nothing in a provider's cache: after a keep, and at first."""


def first_context(
    experiment: Experiment, program: str, files: dict[str, str], fixed: dict[str, str]
) -> Context:
    """Return what a campaign's first proposal is made from, as far as it is known beforehand."""
    baseline = PastAttempt(
        1, "baseline-1", None, "baseline", "", "", "baseline", "", 1.0, None, None, 0, 0, {},
        lambda: files,
    )  # fmt: skip
    return Context(experiment, program, 1, 0, baseline, files, fixed, [baseline], baseline, 0.01)


def forecast(
    proposer: Proposer, context: Context, attempts: int, control: int = 0, known: int = 0
) -> str:
    """Say in one line what proposals will cost.

    Args:
        proposer: Who is asked.
        context: What the first of them is made from.
        attempts: Of the session.
        control: Every how many attempts somebody else proposes; 0: none.
        known: Attempts that the history holds already.
    """
    own = attempts - (attempts // control if control else 0)
    what = (
        f"{attempts} attempts"
        if own == attempts
        else f"{attempts} attempts, {own} of them {proposer.name}'s"
    )
    model, vendor = getattr(proposer, "model", None), getattr(proposer, "vendor", None)
    if not model or not vendor:
        return f"proposals: {what}, unknown price ({proposer.name})"
    rates = getattr(proposer, "rates", None)
    prompt = compose(context)
    stable = sum(map(estimate_tokens, (*prompt.system, *prompt.user[:1])))
    rest = sum(map(estimate_tokens, prompt.user[1:])) + LINE_TOKENS * (known + attempts // 2)
    hit = Usage(model, input_tokens=rest, cache_read_tokens=stable, output_tokens=ANSWER_TOKENS)
    miss = Usage(model, input_tokens=rest, cache_write_tokens=stable, output_tokens=ANSWER_TOKENS)
    try:
        each = (1 - MISSES) * price(vendor, hit, rates) + MISSES * price(vendor, miss, rates)
    except NoPrice:
        return f"proposals: {what}, unknown price ({model} has no list price)"
    source = prices_version() if rates is None else "your price"
    return (
        f"proposals: {what}, about ${own * each:.2f} ({model}, {source}; prompts of "
        f"{stable + rest:,} tokens by an upper estimate, answers of {ANSWER_TOKENS:,} assumed)"
    )
