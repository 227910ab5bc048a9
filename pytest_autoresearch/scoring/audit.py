"""The audit of claimed losses: secret positions, computed again without their targets."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from ..data.dataset import Dataset
from . import CheatDetected, ScoringCrash
from .process import Losses, Scorer, Tokens
from .sampling import Sample, draw, rounds, secret_generator

Floats = npt.NDArray[np.float64]

Ints = npt.NDArray[np.int64]

_HIGHEST_SIZE = 100.0

_SHOWN = 5

_POSITIONS_A_REQUEST = 2048


@dataclass(frozen=True)
class Tolerance:
    """How far two computations of the same number may lie apart by rounding.

    Attributes:
        position: Nats between a claim and its audit. Honest float32 on a CPU: 1e-6.
        mean: Nats between the mean claim and the mean audit, once it is also four standard
            errors. It catches what is shaved off everywhere below `position`.
        logits: Between the logits of one position in two batches.
    """

    position: float
    mean: float
    logits: float

    @classmethod
    def for_device(cls, device: str) -> Tolerance:
        """Defaults: float32 on a CPU; on CUDA room for bfloat16 (steps of 1/16 at logits of 8)."""
        return cls(0.05, 0.002, 0.25) if device == "cuda" else cls(2e-3, 2e-4, 2e-3)


@dataclass(frozen=True)
class Audit:
    """What an audit found.

    Attributes:
        positions: How many were drawn.
        mean: Estimate of the mean of (audit - claim) over all scored targets, in nats.
        se: Its standard error.
        largest: Largest absolute difference met, in nats.
    """

    positions: int
    mean: float
    se: float
    largest: float


@dataclass(frozen=True)
class Plan:
    """Positions drawn for an audit.

    Attributes:
        sample: Draws among the scored targets.
        chosen: (m,) numbers of the drawn targets, row * T + position.
        claims: (m,) nats claimed for them.
    """

    sample: Sample
    chosen: Ints
    claims: Floats


def plan_audit(losses: Losses, scored: Ints, champion: Losses | None, positions: int) -> Plan:
    """Draw positions in secret; call it only when the claims cannot change any more.

    Args:
        losses: (n, T) claimed nats.
        scored: Numbers of the targets that count, row * T + position.
        champion: (n, T) nats of the champion, which guide half of the draws; None draws all
            uniformly.
        positions: How many, even.
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
    """Have the planned positions computed, and compare.

    Args:
        scorer: A fresh process, which has seen nothing of `rows`.
        dataset: Supplies the filler, from its training text.
        rows: (n, T + 1) tokens of the split.
        plan: What to ask for.
        tolerance: What counts as rounding.
        batch: Rows of one forward pass; every one has that many (or all there are).

    Raises:
        CheatDetected: The audit contradicts the claims.
        ScoringCrash: The logits are not finite, or the process failed.
    """
    differences = _audited(scorer, dataset, rows, plan.chosen, batch) - plan.claims
    mean, se = plan.sample.mean(differences)
    audit = Audit(len(differences), mean, se, float(np.abs(differences).max()))
    _judge(audit, differences, plan.chosen, tolerance, dataset.seq_len)
    return audit


def target_nats(logits: Losses, targets: npt.NDArray[Any]) -> Floats:
    """Cross entropy of targets, normalised here: (m, V) float32, (m,) to (m,) float64 nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    nats: Floats = normaliser - shifted[np.arange(len(targets)), targets]
    return nats


def _audited(scorer: Scorer, dataset: Dataset, rows: Tokens, chosen: Ints, batch: int) -> Floats:
    """Losses at `chosen`, in rounds that show no answer before it is given."""
    row, position = np.divmod(chosen, dataset.seq_len)
    when = rounds(chosen + 1, dataset.seq_len)
    result = np.empty(len(chosen))
    for number in range(when.max() + 1):
        in_round = np.flatnonzero(when == number)
        for at in range(0, len(in_round), _POSITIONS_A_REQUEST):
            which = in_round[at : at + _POSITIONS_A_REQUEST]
            size = min(batch, len(which))
            padding = -len(which) % size
            x = _filler(dataset, len(which) + padding)
            for i, member in enumerate(which):
                known = position[member] + 1
                x[i, :known] = rows[row[member], :known]
            asked = [*position[which].tolist(), *[0] * padding]
            logits = scorer.audit(x, asked, size)[: len(which)]
            if not np.isfinite(logits).all():
                raise ScoringCrash("the model's logits are not finite on audited text")
            result[which] = target_nats(logits, rows[row[which], position[which] + 1])
    return result


def _filler(dataset: Dataset, n: int) -> Tokens:
    """(n, T) tokens of training text, so that a suffix looks like any other."""
    train, length = dataset.tokens("train"), dataset.seq_len
    starts = secret_generator().integers(len(train) - length, size=n)
    return np.stack([train[start : start + length] for start in starts])


def _judge(
    audit: Audit, differences: Floats, chosen: Ints, tolerance: Tolerance, seq_len: int
) -> None:
    """Raise CheatDetected unless all differences are rounding."""
    size = np.abs(differences)
    wrong = np.flatnonzero(size > tolerance.position)
    systematic = abs(audit.mean) > max(tolerance.mean, 4 * audit.se)
    if not len(wrong) and not systematic:
        return
    worst = wrong[np.argsort(-size[wrong])][:_SHOWN]
    row, position = np.divmod(chosen[worst], seq_len)
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
    what = (
        f"{len(wrong)} of {audit.positions} audited losses differ from what was claimed, by up to "
        f"{audit.largest:.3g} nats"
    )
    if not len(wrong):
        what = (
            f"audited losses lie {audit.mean:+.2g} nats from the claims on average, more than "
            "rounding does"
        )
    rule = "logits() must depend on the weights and on the prefix of its own row only"
    raise CheatDetected(f"{what}: {rule}", evidence)
