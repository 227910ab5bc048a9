"""Score by claim, then audit.

A score is the mean over all targets of -ln p(token | weights, prefix of the row). The candidate's
own process computes these numbers, so they are claims. Only when they are in, and that process is
dead, are positions drawn in secret; another fresh process gets the prefixes alone, with filler
instead of what follows, and returns whole rows of logits, which are normalised here. The score is
the mean claim plus an unbiased estimate of the mean difference, whatever was claimed; a
difference beyond rounding is a cheat.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from ..core.files import write_atomic
from ..data.dataset import Dataset
from ..forkserver.launch import Child
from . import CheatDetected, ScoringCrash
from .audit import Tolerance, plan_audit, run_audit
from .process import Allowance, Losses, Scorer
from .properties import check_properties
from .provenance import score_hashes

Start = Callable[[], Child]
"""Returns a fresh confined child of phase ``score`` that has been given its job."""

AUDIT = 512

AUDIT_KEEP = 2048
"""Positions audited with every score, and before a mutation is kept."""

_HIGHEST_LOSS = 100.0


@dataclass(frozen=True)
class Score:
    """What scoring one checkpoint came to.

    Attributes:
        bpb: Corrected bits per byte: the claims plus the audit's estimate of their error.
        se: Standard error of `bpb` from auditing a sample only.
        claimed_bpb: Bits per byte of the claims alone.
        n_tokens: Targets that count: those that stand for at least one byte.
        n_bytes: Bytes they stand for.
        audited: Positions audited.
        largest_difference: Nats between a claim and its audit, at most.
        losses: (n, T) float32 nats as claimed, row-major over the split's rows.
        properties: Examples the model's properties held on; 0 when they were not checked.
        seconds: Wall seconds by phase: ``start``, ``properties``, ``claims``, ``audit``.
        cpu_seconds: CPU seconds of the scoring processes, loading included.
        sandbox: Layer to state of the scoring processes.
        hashes: Identities of evaluator, package and data; see `identity.score_hashes`.
    """

    bpb: float
    se: float
    claimed_bpb: float
    n_tokens: int
    n_bytes: int
    audited: int
    largest_difference: float
    losses: Losses = field(repr=False)
    properties: int = 0
    seconds: Mapping[str, float] = field(default_factory=dict)
    cpu_seconds: float = 0.0
    sandbox: Mapping[str, str] = field(default_factory=dict)
    hashes: Mapping[str, str] = field(default_factory=dict)

    def save_losses(self, path: Path) -> Path:
        """Write `losses` as raw little-endian float32, whole or not at all; returns `path`."""
        write_atomic(path, np.ascontiguousarray(self.losses, "<f4").tobytes())
        return path


def evaluate(
    start: Start,
    dataset: Dataset,
    *,
    split: str = "val",
    audit: int = AUDIT,
    champion_losses: Path | None = None,
    device: str = "cpu",
    tolerance: Tolerance | None = None,
    batch: int | None = None,
    properties: bool = True,
    cpu_limit_s: float | None = None,
    wall_limit_s: float = 600.0,
    on_phase: Callable[[str], object] | None = None,
) -> Score:
    """Score a checkpoint on all of `split`.

    Args:
        start: Called once for the claims and once for the audit.
        dataset: The prepared data.
        split: ``"val"`` or ``"holdout"``.
        audit: Positions to audit, even; `AUDIT_KEEP` before a keep.
        champion_losses: File that `Score.save_losses` wrote for the champion on the same split.
            Half of the audit then goes where the claims lie below it; without it, or when it
            belongs to other data, all positions are equally likely.
        device: ``"cpu"`` or ``"cuda"``; decides defaults only.
        tolerance: What counts as rounding; `Tolerance.for_device` by default.
        batch: Rows of one forward pass; by default chosen by size of the logits.
        properties: Whether to try the model's properties (causal, rows independent,
            deterministic) before the claims.
        cpu_limit_s: CPU seconds all scoring processes may use together, loading included.
        wall_limit_s: Wall seconds each of them may take.
        on_phase: Told ``"score"`` and ``"audit"`` when they begin.

    Raises:
        CheatDetected: The losses are not those of (weights, prefix of the row).
        ScoringCrash: The model could not be loaded or run, or has no finite losses.
        ScoringTimeout: Over one of the limits.
        LaunchFailed: The machinery failed; says nothing about the candidate.
    """
    tolerance = tolerance or Tolerance.for_device(device)
    batch = batch or default_batch(dataset, device)
    allowance = Allowance(cpu_limit_s, wall_limit_s)
    timer = _Timer(on_phase)
    with timer("start", tell="score"):
        scorer = Scorer(start, dataset.vocab_size, allowance, secret=True)
    with scorer:
        examples = 0
        if properties:
            with timer("properties"):
                examples = _properties(scorer, dataset, device, tolerance)
        with timer("claims"):
            losses = scorer.claims(dataset.rows(split), batch)
    score = _score(
        start, dataset, split, losses, allowance, timer, audit=audit,
        champion_losses=champion_losses, tolerance=tolerance, batch=batch,
    )  # fmt: skip
    layers = _weakest(scorer.sandbox, score.sandbox)
    return replace(score, properties=examples, sandbox=layers)


def deepen(
    start: Start,
    dataset: Dataset,
    losses: Path,
    *,
    split: str = "val",
    audit: int = AUDIT_KEEP,
    champion_losses: Path | None = None,
    device: str = "cpu",
    tolerance: Tolerance | None = None,
    batch: int | None = None,
    cpu_limit_s: float | None = None,
    wall_limit_s: float = 600.0,
    on_phase: Callable[[str], object] | None = None,
) -> Score:
    """Audit saved claims again, at new secret positions.

    Args:
        start: Called once; its job names the checkpoint that the claims were made with.
        dataset: The prepared data.
        losses: File that `Score.save_losses` wrote for this checkpoint.
        split: The split they belong to.
        audit: Positions to audit, even.
        champion_losses: As in `evaluate`, like all that follow.
        device: Decides defaults.
        tolerance: What counts as rounding.
        batch: Rows of one forward pass.
        cpu_limit_s: CPU seconds, loading included.
        wall_limit_s: Wall seconds.
        on_phase: Told ``"audit"`` when it begins.

    Returns:
        A score with the same claims, corrected by this audit alone.

    Raises:
        ValueError: `losses` is not of this split.
        CheatDetected, ScoringCrash, ScoringTimeout, LaunchFailed: As in `evaluate`.
    """
    claims = load_losses(losses, dataset, split)
    if claims is None:
        raise ValueError(f"{losses} does not hold one loss for every target of {split}; score anew")
    return _score(
        start, dataset, split, claims, Allowance(cpu_limit_s, wall_limit_s), _Timer(on_phase),
        audit=audit, champion_losses=champion_losses,
        tolerance=tolerance or Tolerance.for_device(device),
        batch=batch or default_batch(dataset, device),
    )  # fmt: skip


def rehearse(
    start: Start,
    dataset: Dataset,
    *,
    device: str = "cpu",
    properties: bool = True,
    cpu_limit_s: float | None = None,
    wall_limit_s: float = 600.0,
) -> float:
    """Score one batch of training text: whether a checkpoint can be scored at all, in seconds.

    Nothing secret is sent, so errors are told in full.

    Returns:
        Claimed bits per byte on that batch; worth nothing as a score.

    Raises:
        CheatDetected, ScoringCrash, ScoringTimeout, LaunchFailed: As in `evaluate`.
    """
    rows = dataset.rows("train")[: min(8, default_batch(dataset, device))]
    allowance = Allowance(cpu_limit_s, wall_limit_s)
    with Scorer(start, dataset.vocab_size, allowance, secret=False) as scorer:
        if properties:
            _properties(scorer, dataset, device, Tolerance.for_device(device))
        losses = scorer.claims(rows, len(rows))
    _check_range(losses)
    scored = dataset.token_bytes[rows[:, 1:]].astype(np.int64)
    return bits_per_byte(float(losses[scored > 0].sum(dtype=np.float64)), int(scored.sum()))


def default_batch(dataset: Dataset, device: str) -> int:
    """Rows of a forward pass whose float32 logits take 16 MiB, on CUDA 1 GiB; 1 to 256."""
    size = (1 << 30) if device == "cuda" else (16 << 20)
    return max(1, min(256, size // (4 * dataset.seq_len * dataset.vocab_size)))


def load_losses(path: Path, dataset: Dataset, split: str) -> Losses | None:
    """Read what `Score.save_losses` wrote: (n, T) float32, or None if it is of other data."""
    n, width = dataset.rows(split).shape
    try:
        if path.stat().st_size != 4 * n * (width - 1):
            return None
        return np.fromfile(path, "<f4").reshape(n, width - 1)
    except FileNotFoundError:
        return None


def _score(
    start: Start, dataset: Dataset, split: str, losses: Losses, allowance: Allowance,
    timer: _Timer, *, audit: int, champion_losses: Path | None, tolerance: Tolerance, batch: int,
) -> Score:  # fmt: skip
    """What claimed `losses` and an audit of them together say."""
    _check_range(losses)
    rows = dataset.rows(split)
    token_bytes = dataset.token_bytes[rows[:, 1:]].astype(np.int64).ravel()
    scored = np.flatnonzero(token_bytes)
    champion = load_losses(champion_losses, dataset, split) if champion_losses else None
    plan = plan_audit(losses, scored, champion, audit)
    with timer("start", tell="audit"):
        scorer = Scorer(start, dataset.vocab_size, allowance, secret=True)
    with scorer, timer("audit"):
        found = run_audit(scorer, dataset, rows, plan, tolerance, batch)
    claimed = float(losses.ravel()[scored].sum(dtype=np.float64))
    n, n_bytes = len(scored), int(token_bytes.sum())
    return Score(
        bpb=bits_per_byte(max(claimed + n * found.mean, 0.0), n_bytes),
        se=bits_per_byte(n * found.se, n_bytes),
        claimed_bpb=bits_per_byte(claimed, n_bytes),
        n_tokens=n,
        n_bytes=n_bytes,
        audited=found.positions,
        largest_difference=found.largest,
        losses=losses,
        seconds=dict(timer.seconds),
        cpu_seconds=allowance.used_cpu_s,
        sandbox=dict(scorer.sandbox),
        hashes=score_hashes(dataset, split),
    )


class _Timer:
    """Adds up wall seconds by phase and tells a listener."""

    def __init__(self, on_phase: Callable[[str], object] | None) -> None:
        self.seconds: dict[str, float] = {}
        self._on_phase = on_phase

    @contextmanager
    def __call__(self, phase: str, *, tell: str = "") -> Any:
        if tell and self._on_phase is not None:
            self._on_phase(tell)
        began = time.monotonic()
        try:
            yield
        finally:
            self.seconds[phase] = self.seconds.get(phase, 0.0) + time.monotonic() - began


def _properties(scorer: Scorer, dataset: Dataset, device: str, tolerance: Tolerance) -> int:
    return check_properties(
        scorer.logits,
        dataset.tokens("train"),
        seq_len=dataset.seq_len,
        vocab_size=dataset.vocab_size,
        tolerance=tolerance.logits,
        fixed_shape=device == "cuda",
    )


def _check_range(losses: Losses) -> None:
    if not np.isfinite(losses).all():
        share = 1 - np.isfinite(losses).mean()
        raise ScoringCrash(f"{share:.2%} of the model's losses are not finite")
    if (losses < 0).any():
        raise CheatDetected("claimed losses below zero: no probability is above one")
    if (losses >= _HIGHEST_LOSS).any():
        raise ScoringCrash(
            f"a loss of {losses.max():.4g} nats on one token; the model has diverged"
        )


def _weakest(one: Mapping[str, str], other: Mapping[str, str]) -> dict[str, str]:
    """Layer states of two processes as one: of each layer, the state that is not ok if any."""
    return {
        layer: state if other.get(layer, state).startswith("ok") else other[layer]
        for layer, state in one.items()
    }


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
