"""Audit of claimed losses: recompute secret positions without showing their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.dataset import Dataset
from . import CheatDetected
from .process import Losses, Scorer, Tokens, bounded
from .sampling import Sample, draw, rounds, secret_generator

Floats = npt.NDArray[np.float64]

Ints = npt.NDArray[np.int64]

_HIGHEST_SIZE = 100.0

_LARGE = 100.0
"""Claims in nats above which their rounding in float32 is counted in proportion to them. Only a
claim, which costs what it says, widens its tolerance."""

_EXAMPLES = 5

_REQUEST_POSITIONS = 2048


@dataclass(frozen=True)
class Tolerance:
    """Largest differences between two computations of one number that count as rounding.

    Attributes:
        position: Nats between a claim and its audit, for claims up to `_LARGE`; in proportion
            above. Honest float32 on a CPU: 1e-6.
        mean: Nats between the mean claim and the mean audit, if that is also four standard
            errors. Detects claims that are lowered everywhere by less than `position`.
        logits: Between the logits of one position in two batches.
    """

    position: float
    mean: float
    logits: float

    @classmethod
    def for_device(cls, device: str) -> Tolerance:
        """Return tolerances of float32 on a CPU, of bfloat16 on CUDA (steps of 1/16 at 8)."""
        return cls(0.05, 0.002, 0.25) if device == "cuda" else cls(2e-3, 2e-4, 2e-3)


@dataclass(frozen=True)
class Audit:
    """Result of an audit.

    Attributes:
        positions: Number of draws.
        mean, se: Estimated mean of (audit - claim) over all scored targets, in nats.
        largest: Largest absolute difference, in nats.
    """

    positions: int
    mean: float
    se: float
    largest: float


@dataclass(frozen=True)
class Plan:
    """Targets drawn for an audit: their numbers, row * T + position, and the nats claimed."""

    sample: Sample
    chosen: Ints
    claims: Floats


def plan_audit(losses: Losses, scored: Ints, champion: Losses | None, positions: int) -> Plan:
    """Draw secret positions; call this only when the claims can no longer change.

    Args:
        losses: (n, T) claimed nats.
        scored: Numbers of the scored targets, row * T + position.
        champion: (n, T) nats of the champion, which guide half of the draws; None draws all
            uniformly.
        positions: Number of draws, even.
    """
    claims = losses.ravel()[scored].astype(np.float64)
    sizes = np.zeros(len(scored))
    if champion is not None:
        below = champion.ravel()[scored].astype(np.float64) - claims
        sizes = np.where(np.isfinite(below), np.clip(below, 0, _HIGHEST_SIZE), 0)
    sample = draw(sizes, positions, secret_generator())
    return Plan(sample, scored[sample.members], claims[sample.members])


def run_audit(
    scorer: Scorer, dataset: Dataset, rows: Tokens, plan: Plan, tolerance: Tolerance, batch: int
) -> Audit:
    """Recompute the planned positions and compare them with the claims.

    Args:
        scorer: A new process that has received nothing of `rows`.
        dataset: Supplies filler from its training text.
        rows: (n, T + 1) tokens of the split.
        plan: Positions to request.
        tolerance: Differences that count as rounding.
        batch: Rows of every forward pass.

    Raises:
        CheatDetected: The audit contradicts the claims.
        ScoringCrash: A logit is not finite or too large, or the process failed.
    """
    differences = _audited(scorer, dataset, rows, plan.chosen, batch) - plan.claims
    mean, se = plan.sample.mean(differences)
    audit = Audit(len(differences), mean, se, float(np.abs(differences).max()))
    _judge(audit, differences, plan, tolerance, dataset.seq_len)
    return audit


def target_nats(logits: Losses, targets: npt.NDArray[Any]) -> Floats:
    """Compute the cross entropy of targets: (m, V) float32, (m,) to (m,) float64 nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    nats: Floats = normaliser - shifted[np.arange(len(targets)), targets]
    return nats


def _audited(scorer: Scorer, dataset: Dataset, rows: Tokens, chosen: Ints, batch: int) -> Floats:
    """Request the losses at `chosen` in rounds, so that no answer is revealed in advance."""
    row, position = np.divmod(chosen, dataset.seq_len)
    round_of = rounds(chosen + 1, dataset.seq_len)
    result = np.empty(len(chosen))
    for number in range(round_of.max() + 1):
        in_round = np.flatnonzero(round_of == number)
        for at in range(0, len(in_round), _REQUEST_POSITIONS):
            which = in_round[at : at + _REQUEST_POSITIONS]
            padding = -len(which) % batch
            x = _filler(dataset, len(which) + padding)
            for i, member in enumerate(which):
                prefix = position[member] + 1
                x[i, :prefix] = rows[row[member], :prefix]
            positions = [*position[which].tolist(), *[0] * padding]
            logits = bounded(scorer.audit(x, positions, batch)[: len(which)], "audited text")
            result[which] = target_nats(logits, rows[row[which], position[which] + 1])
    return result


def _filler(dataset: Dataset, n: int) -> Tokens:
    """Draw (n, T) tokens of training text, so that the filler looks like any text."""
    train, length = dataset.tokens("train"), dataset.seq_len
    starts = secret_generator().integers(len(train) - length, size=n)
    return np.stack([train[start : start + length] for start in starts])


def _judge(
    audit: Audit, differences: Floats, plan: Plan, tolerance: Tolerance, seq_len: int
) -> None:
    """Raise CheatDetected unless all differences are within rounding."""
    size = np.abs(differences)
    wrong = np.flatnonzero(size > tolerance.position * np.maximum(1.0, plan.claims / _LARGE))
    systematic = abs(audit.mean) > max(tolerance.mean, 4 * audit.se)
    if not len(wrong) and not systematic:
        return
    worst = wrong[np.argsort(-size[wrong])][:_EXAMPLES]
    row, position = np.divmod(plan.chosen[worst], seq_len)
    evidence = {
        "audited": audit.positions,
        "mismatches": len(wrong),
        "largest_difference_nats": audit.largest,
        "mean_difference_nats": audit.mean,
        "tolerance_nats": tolerance.position,
        "examples": [
            {"row": int(r), "position": int(p), "audit_minus_claim": float(d)}
            for r, p, d in zip(row, position, differences[worst], strict=True)
        ],
    }
    difference = (
        f"{len(wrong)} of {audit.positions} audited losses differ from the claims by up to "
        f"{audit.largest:.3g} nats"
        if len(wrong)
        else f"audited losses differ from the claims by {audit.mean:+.2g} nats on average, more "
        "than rounding"
    )
    rule = "logits() must depend only on the weights and on the prefix of its own row"
    raise CheatDetected(f"{difference}: {rule}", evidence)
