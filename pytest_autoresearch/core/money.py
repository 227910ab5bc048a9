"""Prices of LLM calls."""

from __future__ import annotations

from importlib.metadata import version

from .proposal import ProposerExhausted, Usage


class NoPrice(LookupError):
    """The price of the model is unknown."""


class SetAside(ProposerExhausted):
    """The rest of the budget is reserved by calls in flight; ask again when they have ended."""


def price(provider: str, usage: Usage, rates: tuple[float, float] | None = None) -> float:
    """Return the price of a call in US dollars.

    Args:
        provider: Name in genai-prices, e.g. ``anthropic``.
        usage: With its model. Cache writes are priced at the one-hour rate.
        rates: Dollars per million tokens of input and output that override genai-prices.

    Raises:
        NoPrice: The model is unknown.
    """
    if rates is not None:
        return (rates[0] * usage.tokens_in + rates[1] * usage.output_tokens) / 1e6
    import genai_prices

    try:
        calculated = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=usage.tokens_in,
                cache_read_tokens=usage.cache_read_tokens,
                cache_write_tokens=usage.cache_write_tokens,
                cache_write_1h_tokens=usage.cache_write_tokens,
                output_tokens=usage.output_tokens,
            ),
            model_ref=usage.model,
            provider_id=provider,
        )
    except LookupError:
        raise NoPrice(f"the price of {usage.model!r} ({provider}) is unknown") from None
    return float(calculated.total_price)


def prices_version() -> str:
    """Return the name and version of the price list."""
    return f"genai-prices {version('genai-prices')}"
