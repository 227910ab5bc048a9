"""A finished trial once more: its claims audited deeper, its checkpoint scored anew or tried."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .. import sandbox, scoring
from ..core.run import RunSpec
from ..forkserver.launch import Child, Launcher
from .limits import Ended, Watch
from .setup import CHECKPOINT, LOSSES, open_dataset, scorer, status_of

if TYPE_CHECKING:
    from ..data.dataset import Dataset

CLOZE = "cloze_accuracy"
"""Metric of the downstream task: share of contexts whose next token is ranked first."""


def rescore(
    spec: RunSpec,
    directory: Path,
    watch: Watch,
    values: dict[str, Any],
    mode: sandbox.Mode,
    launcher: Launcher,
) -> None:
    """Score the checkpoint that a trial of the same id left in its run directory.

    Args:
        spec: The trial, with phase ``"audit"`` or ``"rescore"``.
        directory: Its run directory.
        watch: Limits and onlookers.
        values: Receives fields of the result.
        mode: Confinement.
        launcher: Starts the scoring processes.

    Raises:
        Ended: The score does not stand, and why.
        LaunchFailed: The machinery failed.
    """
    from ..scoring import evaluator

    checkpoint = directory / CHECKPOINT
    if not checkpoint.is_file():
        raise Ended("infra", f"{checkpoint} is gone; train the mutation again")
    dataset = open_dataset(spec)
    start = scorer(spec, launcher, directory, dataset, mode, on_wait=watch.check)
    arguments: dict[str, Any] = {
        "split": spec.split,
        "audit": spec.audit,
        "champion_losses": spec.champion_losses,
        "device": spec.device,
        "cpu_limit_s": spec.scoring_cpu_limit_s,
        "wall_limit_s": max(1.0, watch.left_s),
        "on_phase": lambda phase: watch.enter(phase, 1.0),
    }
    values["checkpoint"] = checkpoint
    if spec.phase == "downstream":
        _downstream(start, dataset, watch, values)
        return
    try:
        with watch.cause("audit" if spec.phase == "audit" else "score"):
            if spec.phase == "audit":
                score = evaluator.deepen(start, dataset, directory / LOSSES, **arguments)
            else:
                score = evaluator.evaluate(start, dataset, **arguments)
    except scoring.ScoringError as error:
        values["evidence"] = dict(error.evidence)
        raise Ended(status_of(error), error.reason) from None
    trusted = sandbox.Report(score.sandbox).verified
    values.update(
        score=score.bpb,
        score_se=score.se,
        score_kind="trusted" if trusted else "unverified",
        sandbox=dict(score.sandbox),
        hashes=dict(score.hashes),
        evidence={
            "claimed_bpb": score.claimed_bpb,
            "audited": score.audited,
            "largest_difference_nats": score.largest_difference,
        },
    )


def _downstream(
    start: Callable[[], Child], dataset: Dataset, watch: Watch, values: dict[str, Any]
) -> None:
    from ..scoring.downstream import downstream

    try:
        with watch.cause("downstream"):
            found = downstream(start, dataset, wall_limit_s=max(1.0, watch.left_s))
    except scoring.ScoringError as error:
        raise Ended(status_of(error), error.reason) from None
    if found is not None:
        values["metrics"] = {CLOZE: found.accuracy}
        values["evidence"] = {"sample": found.sample, "contexts": found.rows}
