"""Bits per byte: a loss that does not depend on the vocabulary."""

from __future__ import annotations

import math


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Convert a summed cross entropy to bits per byte.

    Args:
        nats: Sum over scored tokens of -ln p(token), in nats.
        n_bytes: UTF-8 bytes those tokens stand for; special tokens count 0 and are not scored.

    Returns:
        nats / (ln 2 * n_bytes).

    Raises:
        ValueError: If `n_bytes` is not positive, or `nats` is negative or not finite.
    """
    if n_bytes <= 0:
        raise ValueError(f"bits per byte of {n_bytes} bytes; score at least one token with bytes")
    if not math.isfinite(nats) or nats < 0:
        raise ValueError(f"a summed loss of {nats} nats is no cross entropy; it must be >= 0")
    return nats / (math.log(2) * n_bytes)
