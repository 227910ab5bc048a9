"""Score by claim, then audit.

A score is the mean over all targets of -ln p(token | weights, prefix of the row). The candidate's
own process computes these losses, so they are claims. Once they are received and that process is
dead, positions are drawn in secret. A new process receives only the prefixes, padded with filler,
and returns rows of logits, which are normalised here. The score is the mean claim plus an unbiased
estimate of the mean difference; a difference larger than rounding is a cheat.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from ..core.files import write_atomic
from ..data.dataset import Dataset
from ..forkserver.client import LaunchFailed
from ..forkserver.launch import Child
from . import AUDIT, CheatDetected, ScoringCrash
from .audit import Tolerance, plan_audit, run_audit
from .process import Allowance, Losses, Scorer
from .properties import check_properties
from .provenance import score_hashes

Start = Callable[[], Child]
"""Starts a new confined child of phase ``score`` with its job."""

_AUDIT_BATCH = 64
"""Most rows of a pass of the audit, whose rounds hold few positions and are filled up to it."""


@dataclass(frozen=True)
class Score:
    """Score of one checkpoint.

    Attributes:
        bpb: Corrected bits per byte: the claims plus the audit's estimate of their error.
        se: Standard error of `bpb` from auditing only a sample.
        claimed_bpb: Bits per byte of the claims alone.
        n_tokens: Scored targets: those that stand for at least one byte.
        n_bytes: Bytes they stand for.
        audited: Positions audited.
        largest_difference: Largest difference between a claim and its audit, in nats.
        worst_token: Largest claimed loss of a scored target, in nats.
        losses: (n, T) float32 nats as claimed, row-major over the split's rows.
        properties: Examples on which the model's properties held; 0 if they were not tested.
        seconds: Wall seconds by phase: ``start``, ``properties``, ``claims``, ``audit``.
        cpu_seconds: CPU seconds of the scoring processes, including loading.
        sandbox: Layer to state of the scoring processes.
        hashes: Identities of evaluator, package and data; see `provenance.score_hashes`.
    """

    bpb: float
    se: float
    claimed_bpb: float
    n_tokens: int
    n_bytes: int
    audited: int
    largest_difference: float
    worst_token: float
    losses: Losses = field(repr=False)
    properties: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    sandbox: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    def save_losses(self, path: Path) -> Path:
        """Write `losses` atomically as raw little-endian float32; return `path`."""
        write_atomic(path, np.ascontiguousarray(self.losses, "<f4").tobytes())
        return path


def evaluate(
    start: Start,
    dataset: Dataset,
    *,
    split: str = "val",
    claims: Path | None = None,
    audit: int = AUDIT,
    champion_losses: Path | None = None,
    device: str = "cpu",
    batch: int | None = None,
    properties: bool = True,
    cpu_limit_s: float | None = None,
    wall_limit_s: float = 600.0,
    on_phase: Callable[[str], object] | None = None,
) -> Score:
    """Score a checkpoint on all of `split`, or audit its saved claims at new positions.

    Args:
        start: Called once for the claims and once for the audit.
        dataset: The prepared data.
        split: ``"val"`` or ``"holdout"``.
        claims: File that `Score.save_losses` wrote for this checkpoint: only audit these.
        audit: Positions to audit, even; `AUDIT_KEEP` before a keep.
        champion_losses: File that `Score.save_losses` wrote for the champion on the same split.
            Half of the audit is then drawn where the claims are below it; without it, or if it
            belongs to other data, all positions are equally likely.
        device: ``"cpu"`` or ``"cuda"``; determines the tolerances and the default batch.
        batch: Rows of one forward pass; `default_batch` if None.
        properties: Whether to test the model's properties (causal, rows independent,
            deterministic) before the claims.
        cpu_limit_s: CPU seconds all scoring processes may use together, including loading.
        wall_limit_s: Wall seconds each of them may take.
        on_phase: Called with ``"score"`` and ``"audit"`` when they begin.

    Raises:
        CheatDetected: The losses are not those of (weights, prefix of the row).
        ScoringCrash: The model could not be loaded or run, or has no finite losses.
        ScoringTimeout: Over one of the limits.
        LaunchFailed: The harness failed, or `claims` does not belong to this split; independent of
            the candidate.
    """
    batch = batch or default_batch(dataset, device)
    allowance = Allowance(cpu_limit_s, wall_limit_s)
    timer = _Timer(on_phase)
    examples = 0
    sandbox: Mapping[str, str] = {}
    if claims is not None:
        losses = load_losses(claims, dataset, split)
        if losses is None:
            raise LaunchFailed(
                f"{claims} does not hold one loss for every target of {split}; score again"
            )
    else:
        with timer("start", report="score"):
            scorer = Scorer(start, dataset.vocab_size, allowance, secret=True)
        with scorer:
            if properties:
                with timer("properties"):
                    examples = _properties(scorer, dataset, device)
            with timer("claims"):
                _seal(scorer, dataset, batch, len(dataset.rows(split)))
                losses = scorer.claims(dataset.rows(split), batch)
            sandbox = scorer.sandbox
    _check_range(losses)
    rows = dataset.rows(split)
    token_bytes = dataset.token_bytes[rows[:, 1:]].astype(np.int64).ravel()
    scored = np.flatnonzero(token_bytes)
    champion = load_losses(champion_losses, dataset, split) if champion_losses else None
    plan = plan_audit(losses, scored, champion, audit)
    with timer("start", report="audit"):
        scorer = Scorer(start, dataset.vocab_size, allowance, secret=True)
    with scorer, timer("audit"):
        size = min(batch, _AUDIT_BATCH)
        _seal(scorer, dataset, size, size)
        result = run_audit(scorer, dataset, rows, plan, Tolerance.for_device(device), size)
    scored_losses = losses.ravel()[scored]
    claimed = float(scored_losses.sum(dtype=np.float64))
    n, n_bytes = len(scored), int(token_bytes.sum())
    return Score(
        bpb=bits_per_byte(max(claimed + n * result.mean, 0.0), n_bytes),
        se=bits_per_byte(n * result.se, n_bytes),
        claimed_bpb=bits_per_byte(claimed, n_bytes),
        n_tokens=n,
        n_bytes=n_bytes,
        audited=result.positions,
        largest_difference=result.largest,
        worst_token=float(scored_losses.max()),
        losses=losses,
        properties=examples,
        seconds=timer.seconds,
        cpu_seconds=allowance.used_cpu_s,
        sandbox=_weakest(sandbox, scorer.sandbox),
        hashes=score_hashes(dataset, split),
    )


def rehearse(
    start: Start,
    dataset: Dataset,
    *,
    device: str = "cpu",
    cpu_limit_s: float | None = None,
    wall_limit_s: float = 600.0,
) -> float:
    """Score one batch of training text, to check that a checkpoint can be scored.

    No secret text is sent, so errors are reported in full.

    Returns:
        Claimed bits per byte on that batch, which is not audited.

    Raises:
        CheatDetected, ScoringCrash, ScoringTimeout, LaunchFailed: As in `evaluate`.
    """
    rows = dataset.rows("train")[: min(8, default_batch(dataset, device))]
    allowance = Allowance(cpu_limit_s, wall_limit_s)
    with Scorer(start, dataset.vocab_size, allowance, secret=False) as scorer:
        _properties(scorer, dataset, device)
        _seal(scorer, dataset, len(rows), len(rows))
        losses = scorer.claims(rows, len(rows))
    _check_range(losses)
    scored = dataset.token_bytes[rows[:, 1:]].astype(np.int64)
    return bits_per_byte(float(losses[scored > 0].sum(dtype=np.float64)), int(scored.sum()))


def default_batch(dataset: Dataset, device: str) -> int:
    """Return the rows of a forward pass with 16 MiB of float32 logits (CUDA: 1 GiB); 1 to 256."""
    size = (1 << 30) if device == "cuda" else (16 << 20)
    return max(1, min(256, size // (4 * dataset.seq_len * dataset.vocab_size)))


def load_losses(path: Path, dataset: Dataset, split: str) -> Losses | None:
    """Read a file of `Score.save_losses`: (n, T) float32, or None if it belongs to other data."""
    n, width = dataset.rows(split).shape
    try:
        if path.stat().st_size != 4 * n * (width - 1):
            return None
        return np.fromfile(path, "<f4").reshape(n, width - 1)
    except FileNotFoundError:
        return None


class _Timer:
    """Adds up wall seconds by phase and reports phases to a callback."""

    def __init__(self, on_phase: Callable[[str], object] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_phase = on_phase

    @contextmanager
    def __call__(self, phase: str, *, report: str = "") -> Iterator[None]:
        if report and self._on_phase is not None:
            self._on_phase(report)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began


def _properties(scorer: Scorer, dataset: Dataset, device: str) -> int:
    return check_properties(
        scorer.logits,
        dataset.tokens("train"),
        seq_len=dataset.seq_len,
        vocab_size=dataset.vocab_size,
        tolerance=Tolerance.for_device(device).logits,
        fixed_shape=device == "cuda",
    )


def _seal(scorer: Scorer, dataset: Dataset, batch: int, rows: int) -> None:
    """Seal the process once it has scored training text in passes of the sizes to come.

    Args:
        scorer: The process.
        dataset: Supplies the training text.
        batch: Rows of the forward passes to come.
        rows: Rows to come in all, which decide the size of the last pass.
    """
    scorer.seal(dataset.rows("train")[: batch + rows % batch], batch)


def _check_range(losses: Losses) -> None:
    if not np.isfinite(losses).all():
        share = 1 - np.isfinite(losses).mean()
        raise ScoringCrash(f"{share:.2%} of the model's losses are not finite")
    if (losses < 0).any():
        raise CheatDetected("claimed losses below zero: a probability cannot exceed one")


def _weakest(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Merge the layer states of two processes: a state that is not ok takes precedence."""
    return {
        **other,
        **{layer: state for layer, state in one.items() if other.get(layer, "ok").startswith("ok")},
    }


def bits_per_byte(nats: float, n_bytes: int) -> float:
    """Convert a summed cross entropy to bits per byte.

    Args:
        nats: Sum over scored tokens of -ln p(token), in nats.
        n_bytes: UTF-8 bytes those tokens stand for; special tokens count 0 and are not scored.

    Returns:
        nats / (ln 2 * n_bytes).

    Raises:
        ValueError: `n_bytes` is not positive, or `nats` is negative or not finite.
    """
    if n_bytes <= 0:
        raise ValueError(f"bits per byte of {n_bytes} bytes; score at least one token with bytes")
    if not math.isfinite(nats) or nats < 0:
        raise ValueError(f"a summed loss of {nats} nats is not a cross entropy; it must be >= 0")
    return nats / (math.log(2) * n_bytes)
