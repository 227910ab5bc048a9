"""Score by claim, then audit.

A score is the mean over all targets of -ln p(token | weights, prefix of the row). The candidate's
own process computes these numbers, so they are claims. Only when they are in, and that process is
dead, are positions drawn in secret; another fresh process gets the prefixes alone, with filler
instead of what follows, and returns whole rows of logits, which are normalised here. The score is
the mean claim plus an unbiased estimate of the mean difference, so forging claims gains nothing
in expectation; a difference beyond rounding is a cheat.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from ..trial.launch import Child
from . import CheatDetected, ScoringCrash
from .bits import bits_per_byte
from .dataset import Dataset
from .identity import score_hashes
from .properties import check_properties
from .remote import Allowance, Losses, Scorer, Tokens
from .sampling import Sample, draw, rounds, secret_generator

Start = Callable[[], Child]
"""Returns a fresh confined child of phase ``score`` that has been given its job."""

Floats = npt.NDArray[np.float64]

AUDIT = 512
AUDIT_KEEP = 2048
"""Positions audited with every score, and before a mutation is kept."""

_HIGHEST_LOSS = 100.0
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
        temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
        with temporary.open("wb") as file:
            file.write(np.ascontiguousarray(self.losses, "<f4").tobytes())
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
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
    allowance = Allowance(cpu_limit_s, wall_limit_s)
    rows = dataset.rows(split)
    timer = _Timer(on_phase)
    with timer("start", tell="score"):
        scorer = Scorer(start, dataset.vocab_size, allowance, secret=True)
    with scorer:
        examples = 0
        if properties:
            with timer("properties"):
                examples = _properties(scorer, dataset, device, tolerance)
        with timer("claims"):
            losses = scorer.claims(rows, batch or default_batch(dataset, device))
    auditor = _Auditor(dataset, split, tolerance, batch or default_batch(dataset, device))
    score = auditor.score(start, allowance, losses, audit, champion_losses, timer)
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
    auditor = _Auditor(
        dataset,
        split,
        tolerance or Tolerance.for_device(device),
        batch or default_batch(dataset, device),
    )
    allowance = Allowance(cpu_limit_s, wall_limit_s)
    return auditor.score(start, allowance, claims, audit, champion_losses, _Timer(on_phase))


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


def target_nats(logits: Losses, targets: npt.NDArray[Any]) -> Floats:
    """Cross entropy of targets, normalised here: (m, V) float32, (m,) to (m,) float64 nats."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    normaliser = np.log(np.exp(shifted).sum(axis=1, dtype=np.float64))
    nats: Floats = normaliser - shifted[np.arange(len(targets)), targets]
    return nats


@dataclass
class _Auditor:
    """Draws secret positions, has them computed without their targets, compares."""

    dataset: Dataset
    split: str
    tolerance: Tolerance
    batch: int

    def score(
        self, start: Start, allowance: Allowance, losses: Losses, audit: int,
        champion_losses: Path | None, timer: _Timer,
    ) -> Score:  # fmt: skip
        """Return what the claimed `losses` and an audit of them together say."""
        _check_range(losses)
        rows = self.dataset.rows(self.split)
        token_bytes = self.dataset.token_bytes[rows[:, 1:]].astype(np.int64).ravel()
        scored = np.flatnonzero(token_bytes)
        claims = losses.ravel()[scored].astype(np.float64)
        n_bytes = int(token_bytes.sum())
        claimed = float(claims.sum())

        sizes = self._sizes(champion_losses, scored, claims)
        sample = draw(sizes, audit, secret_generator())
        chosen = scored[sample.members]
        with timer("start", tell="audit"):
            scorer = Scorer(start, self.dataset.vocab_size, allowance, secret=True)
        with scorer, timer("audit"):
            audited = self._audit(scorer, rows, chosen)
        differences = audited - claims[sample.members]
        self._judge(differences, sample, chosen)

        mean, se = sample.mean(differences)
        n = len(scored)
        return Score(
            bpb=bits_per_byte(max(claimed + n * mean, 0.0), n_bytes),
            se=bits_per_byte(n * se, n_bytes),
            claimed_bpb=bits_per_byte(claimed, n_bytes),
            n_tokens=n,
            n_bytes=n_bytes,
            audited=audit,
            largest_difference=float(np.abs(differences).max()),
            losses=losses,
            seconds=dict(timer.seconds),
            cpu_seconds=allowance.used_cpu_s,
            sandbox=dict(scorer.sandbox),
            hashes=score_hashes(self.dataset, self.split),
        )

    def _sizes(
        self, champion_losses: Path | None, scored: npt.NDArray[Any], claims: Floats
    ) -> Floats:
        """How far each claim lies below the champion's loss; zeros where there is no champion."""
        champion = None
        if champion_losses is not None:
            champion = load_losses(champion_losses, self.dataset, self.split)
        if champion is None:
            return np.zeros(len(scored))
        sizes = champion.ravel()[scored].astype(np.float64) - claims
        return np.where(np.isfinite(sizes), np.clip(sizes, 0, _HIGHEST_LOSS), 0)

    def _audit(self, scorer: Scorer, rows: Tokens, chosen: npt.NDArray[Any]) -> Floats:
        """Losses at `chosen` (numbers of targets, row * T + position), computed here."""
        length = self.dataset.seq_len
        train = self.dataset.tokens("train")
        generator = secret_generator()
        row, position = np.divmod(chosen, length)
        when = rounds(chosen + 1, length)
        result = np.empty(len(chosen))
        for number in range(when.max() + 1):
            in_round = np.flatnonzero(when == number)
            for at in range(0, len(in_round), _POSITIONS_A_REQUEST):
                which = in_round[at : at + _POSITIONS_A_REQUEST]
                batch = min(self.batch, len(which))
                padding = -len(which) % batch
                offsets = generator.integers(len(train) - length, size=len(which) + padding)
                x = np.stack([train[o : o + length] for o in offsets])
                for i, member in enumerate(which):
                    known = position[member] + 1
                    x[i, :known] = rows[row[member], :known]
                asked = [*position[which].tolist(), *[0] * padding]
                logits = scorer.audit(x, asked, batch)[: len(which)]
                if not np.isfinite(logits).all():
                    raise ScoringCrash("the model's logits are not finite on audited text")
                result[which] = target_nats(logits, rows[row[which], position[which] + 1])
        return result

    def _judge(self, differences: Floats, sample: Sample, chosen: npt.NDArray[Any]) -> None:
        """Raise CheatDetected unless all differences are rounding."""
        size = np.abs(differences)
        wrong = np.flatnonzero(size > self.tolerance.position)
        mean, se = sample.mean(differences)
        systematic = abs(mean) > self.tolerance.mean and abs(mean) > 4 * se
        if not len(wrong) and not systematic:
            return
        worst = wrong[np.argsort(-size[wrong])][:_SHOWN]
        row, position = np.divmod(chosen[worst], self.dataset.seq_len)
        evidence = {
            "audited": len(differences),
            "mismatches": len(wrong),
            "largest_difference_nats": float(size.max()),
            "mean_difference_nats": mean,
            "tolerance_nats": self.tolerance.position,
            "examples": [
                {"row": int(r), "position": int(p), "audit_minus_claim": float(d)}
                for r, p, d in zip(row, position, differences[worst], strict=True)
            ],
        }
        if len(wrong):
            raise CheatDetected(
                f"{len(wrong)} of {len(differences)} audited losses differ from what was claimed, "
                f"by up to {size.max():.3g} nats: logits() must depend on the weights and on the "
                "prefix of its own row only",
                evidence,
            )
        raise CheatDetected(
            f"audited losses lie {mean:+.2g} nats from the claims on average, more than rounding "
            "does: logits() must depend on the weights and on the prefix of its own row only",
            evidence,
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
