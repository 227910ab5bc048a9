"""TODO core.money."""

from __future__ import annotations

from .proposal import ProposerExhausted, Usage


class NoPrice(LookupError):
    """Nobody knows what the model costs."""


class SetAside(ProposerExhausted):
    """There is money, but calls in flight hold it: worth asking again when they have ended."""


def price(provider: str, usage: Usage, rates: tuple[float, float] | None = None) -> float:
    """Return what a call costs in US dollars.

    Args:
        provider: As genai-prices names it, e.g. ``anthropic``.
        usage: With its model. Tokens written to a cache are taken to live for an hour.
        rates: Dollars per million tokens of input, cached or not, and of output, where a person
            knows better than the list.

    Raises:
        NoPrice: The model is unknown.
    """
    whole = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    if rates is not None:
        return (rates[0] * whole + rates[1] * usage.output_tokens) / 1e6
    import genai_prices

    try:
        found = genai_prices.calc_price(
            genai_prices.Usage(
                input_tokens=whole,
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
    return float(found.total_price)


def prices_version() -> str:
    """Return which prices are used."""
    from importlib.metadata import version

    return f"genai-prices {version('genai-prices')}"
