"""Why an attempt gained or lost: speed and learning, beside the champion's on the same seeds.

A better score comes from more training in the same budget, or from learning more of the same
training. The first is counted by the harness, the second is in the training loss at equal work,
which is as the candidate reported it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from statistics import fmean

from ..core.proposal import Measured
from ..core.records import Attempt
from ..core.run import SCORING, Purpose, Run

SAME_WORK = 0.03
"""Share of more or less training that counts as equal: the clock of counted work scatters."""

NOISE = 1.0
"""Standard errors below which a gain has no cause but noise."""

SAME_LEARNING = 0.01
"""Difference of two training losses at equal work, in nats, that counts as equal."""

_COMPARED = (0.25, 0.5)
"""Part of the common training that is compared: after the start, before learning rates decay."""

_POINTS = 4
"""Losses that a mean needs."""

_HIGHEST = 1e12

_CLASSES = (
    (re.compile(r"\b([A-Z]\w*(?:Error|Exception))\b"), r"\1"),
    (re.compile(r"not finite|\bnan\b|\binf\b|a logit of the model", re.I), "not finite"),
    (re.compile(r"memory", re.I), "memory"),
    (re.compile(r"checkpoint|bytes", re.I), "checkpoint"),
    (re.compile(r"shape"), "shape"),
    (re.compile(r"killed|exited|ended|signal", re.I), "process ended"),
)


class Diagnosis:
    """Compares attempts with the champions that they had to beat."""

    def __init__(self, attempts: Iterable[Attempt]) -> None:
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._baseline = [a for a in self._by_id.values() if a.kind == "baseline"]

    def measured(self, attempt: Attempt) -> Measured:
        """Return what the attempt's runs measured."""
        pairs = self._pairs(attempt)
        measured = _measure([run for run in attempt.own_runs if run.status == "ok"])
        return replace(measured, more_work=_more_work(pairs), lead=_lead(pairs))

    def of_champion(self, champion: Attempt) -> Measured:
        """Return what a champion's runs measured, on all its seeds."""
        return _measure(list(self._champion_runs(champion).values()))

    def cause(self, attempt: Attempt) -> str:
        """Return the cause of a finished attempt's result in a few words; '' for a baseline."""
        if attempt.verdict is None or attempt.kind == "baseline":
            return ""
        if attempt.gain is None or attempt.gain_sigma is None:
            return _failure(attempt.verdict, attempt.reason)
        if abs(attempt.gain_sigma) < NOISE:
            return "equal, and simpler" if attempt.verdict == "keep" else "within noise"
        return _explain(attempt.gain > 0, self._pairs(attempt))

    def _pairs(self, attempt: Attempt) -> list[tuple[Run, Run]]:
        """Return the attempt's runs, each with the champion's on the same seed."""
        champion = self._by_id.get(attempt.champion_before or 0)
        rivals = self._champion_runs(champion) if champion else {}
        return [
            (run, rivals[run.seed])
            for run in attempt.own_runs
            if run.status == "ok" and run.seed in rivals
        ]

    def _champion_runs(self, champion: Attempt) -> Mapping[int, Run]:
        """Return a champion's runs by seed."""
        sources = self._baseline if champion.kind == "baseline" else [champion]
        purposes = (*SCORING, Purpose.CHAMPION)
        return {
            run.seed: run
            for source in sources
            for run in source.runs
            if run.purpose in purposes and run.status == "ok"
        }


def _measure(runs: Sequence[Run]) -> Measured:
    """Return the means over `runs`."""
    if not runs:
        return Measured()
    losses = [loss for run in runs if (loss := _mean_loss(run.curve, 0.9, 1.01)) is not None]
    counted = [run for run in runs if run.steps]
    return Measured(
        seeds=tuple(sorted(run.seed for run in runs)),
        steps=_mean(run.steps for run in counted),
        work=_mean(run.work for run in counted),
        step_ms=_mean(1000 * _seconds(run) / run.steps for run in counted),
        parts=_parts(runs),
        train_loss=_mean(losses),
        worst_token=max(run.evidence.get("worst_token_nats", 0.0) for run in runs),
        parameters=max(run.parameters for run in runs),
        memory_mb=max(run.peak_memory_bytes for run in runs) / 2**20,
    )


def _more_work(pairs: Sequence[tuple[Run, Run]]) -> float | None:
    shares = [run.work / rival.work - 1 for run, rival in pairs if run.work and rival.work]
    return _mean(shares) if shares else None


def _lead(pairs: Sequence[tuple[Run, Run]]) -> float | None:
    leads = [lead for run, rival in pairs if (lead := _lead_of(run, rival)) is not None]
    return _mean(leads) if leads else None


def _explain(better: bool, pairs: Sequence[tuple[Run, Run]]) -> str:
    more = _more_work(pairs)
    learned = "learned better" if better else "learned worse"
    if more is None:
        return "better" if better else "worse"
    if abs(more) < SAME_WORK:
        return f"{learned} at equal tokens"
    speed = "faster" if more > 0 else "slower"
    if (more > 0) != better:
        return f"{learned}, though {speed}"
    lead = _lead(pairs)
    also = lead is not None and abs(lead) > SAME_LEARNING and (lead > 0) == better
    return f"{speed}, and {learned} at equal tokens" if also else speed


def _failure(verdict: str, reason: str) -> str:
    if verdict != "crash":
        return verdict
    for pattern, name in _CLASSES:
        if match := pattern.search(reason):
            return f"crash: {match.expand(name)}"
    return verdict


def _lead_of(run: Run, rival: Run) -> float | None:
    """Return by how much the run's training loss is lower than its rival's at equal work."""
    work = min(run.work, rival.work)
    if work <= 0:
        return None
    own, other = (
        _mean_loss(one.curve, *(share * work / one.work for share in _COMPARED))
        for one in (run, rival)
    )
    return None if own is None or other is None else other - own


def _mean_loss(curve: Sequence[tuple[float, float]], low: float, high: float) -> float | None:
    losses = [loss for at, loss in curve if low <= at < high]
    return _mean(losses) if len(losses) >= _POINTS else None


def _seconds(run: Run) -> float:
    """Return the seconds of a training: of the CPU, or of the wall where the CPU only waits."""
    return run.train_seconds if run.device.startswith("cuda") else run.cpu_seconds


def _parts(runs: Sequence[Run]) -> dict[str, float]:
    names = ("forward_ms", "head_and_loss_ms", "backward_ms", "optimizer_ms")
    return {
        name.removesuffix("_ms").replace("_", " "): _mean(values)
        for name in names
        if (values := [run.metrics[name] for run in runs if name in run.metrics])
    }


def _mean(values: Iterable[float]) -> float:
    """Return the mean, 0 of nothing; figures of candidates are bounded, so that none overflows."""
    listed = [min(max(value, -_HIGHEST), _HIGHEST) for value in values]
    return fmean(listed) if listed else 0.0
