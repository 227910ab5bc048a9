"""Scoring of an earlier run's checkpoint: a deeper audit, a new score, or the downstream task."""

from __future__ import annotations

from dataclasses import replace

from ..core.run import Purpose
from .context import CHECKPOINT, LOSSES, RunContext
from .limits import Ended

CLOZE = "cloze_accuracy"
"""Metric of the downstream task: share of contexts whose next token is ranked first."""


def rescore(context: RunContext) -> None:
    """Score the checkpoint that a run of the same id left in its run directory.

    Args:
        context: A run whose spec says ``from_checkpoint``.

    Raises:
        Ended: The checkpoint is missing or its score is refused.
        LaunchFailed: A scoring process could not be started.
    """
    from ..scoring import evaluator

    spec = context.spec
    checkpoint = context.directory / CHECKPOINT
    if not checkpoint.is_file():
        raise Ended("infra", f"the checkpoint {checkpoint} is missing; train the mutation again")
    context.result = replace(context.result, checkpoint=checkpoint)
    if spec.purpose is Purpose.DOWNSTREAM:
        _downstream(context)
        return
    audit = spec.purpose is Purpose.AUDIT
    split = "holdout" if spec.purpose is Purpose.HOLDOUT else "val"
    with context.scoring_errors(), context.limits.cause("audit" if audit else "score"):
        score = evaluator.evaluate(
            context.start_scorer, context.dataset, split=split, audit=spec.audit,
            claims=context.directory / LOSSES if audit else None,
            champion_losses=spec.champion_losses, device=spec.device,
            on_phase=context.enter_phase, cpu_limit_s=spec.scoring_cpu_limit_s,
            wall_limit_s=context.scoring_wall_s,
        )  # fmt: skip
    context.take_score(score)
    context.result = replace(context.result, sandbox=dict(score.sandbox))


def _downstream(context: RunContext) -> None:
    from ..scoring.downstream import downstream

    with context.scoring_errors(), context.limits.cause("downstream"):
        answer = downstream(
            context.start_scorer, context.dataset, wall_limit_s=context.scoring_wall_s
        )
    if answer is not None:
        context.result = replace(context.result, metrics={CLOZE: answer.accuracy})
        context.add_evidence({"sample": answer.sample, "contexts": answer.rows})
