"""Scoring a finished trial once more: its claims audited deeper, or its checkpoint scored anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from .. import sandbox, scoring
from . import TrialSpec
from .launch import Launcher
from .run import CHECKPOINT, LOSSES, open_dataset, scorer, status_of
from .watch import Ended, Watch


def rescore(
    spec: TrialSpec,
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
