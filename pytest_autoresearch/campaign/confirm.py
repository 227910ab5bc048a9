"""Confirm the gain of a campaign on fresh seeds and on the holdout.

A kept score is biased upwards: it was selected on certain seeds and on the validation text. So the
champions are trained in pairs on fresh seeds, and their checkpoints are scored on a split that no
run, no prompt and no live page has shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from ..core.records import Confirmation, Gain, Survival
from ..core.run import SCORING, Purpose
from ..judge.confirmation import kept_gain, paired_gain, still_holds
from .attempt import WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Champion
    from ..core.run import Run
    from .loop import Campaign

Say = Callable[[str], object]


def confirm(
    campaign: Campaign, seeds: int, *, everyone: bool = False, say: Say = lambda line: None
) -> Confirmation | None:
    """Confirm the champion on `seeds` fresh seeds, and store the result; None without a keep.

    Runs of an earlier, interrupted confirmation are used again. With `everyone`, every champion is
    examined, not only the first and the last.

    Raises:
        InfrastructureFailure: A run failed for a reason that is not the candidate's.
        Interrupted: The session was asked to stop.
    """
    ledger, metric = campaign.ledger, campaign.experiment.metric
    champions = ledger.champions()
    if len(champions) < 2:
        return None
    first, last = champions[0], champions[-1]
    examined = champions if everyone else [first, last]
    fresh = campaign.facts.fresh_seeds(seeds)
    trouble: list[str] = []
    scores = {c.version: _on_fresh_seeds(campaign, c, fresh, say, trouble) for c in examined}
    held_out = {c.version: _on_holdout(campaign, c, say, trouble) for c in examined}
    attempts = {attempt.id: attempt for attempt in ledger.attempts()}
    noise = campaign.runner.noise()

    def gain(of: Mapping[int, Mapping[int, float]], new: Champion, old: Champion) -> Gain | None:
        a, b = of[new.version], of[old.version]
        return paired_gain([metric.gain(a[seed], b[seed]) for seed in a if seed in b], noise)

    survivals = []
    for old, new in itertools.pairwise(examined) if everyone or len(champions) == 2 else ():
        attempt, again = attempts[new.attempt_id], gain(scores, new, old)
        survivals.append(
            Survival(
                attempt.id,
                attempt.name,
                attempt.title,
                attempt.gain or 0.0,
                again.gain if again else None,
                again is not None and still_holds(attempt, again, noise, metric),
            )
        )
    confirmation = Confirmation(
        champion=last.version,
        seeds=fresh,
        kept=kept_gain(list(attempts.values()), champions),
        confirmed=gain(scores, last, first),
        holdout=gain(held_out, last, first),
        keeps=tuple(survivals),
        trouble=tuple(trouble),
    )
    ledger.save_confirmation(confirmation)
    return confirmation


def _on_fresh_seeds(
    campaign: Campaign, champion: Champion, seeds: Sequence[int], say: Say, trouble: list[str]
) -> dict[int, float]:
    on_cuda = campaign.runner.device.kind == "cuda"
    runs = [run for run in _runs(campaign, champion) if run.device.startswith("cuda") == on_cuda]
    scores = _scores(runs, Purpose.CONFIRM)
    attempt, name = _attempt(campaign, champion)
    for seed in seeds:
        if seed in scores:
            continue
        files = campaign.runner.read(champion.commit)
        result = campaign.runner.run(attempt, files, seed, Purpose.CONFIRM)
        if result.score is None:
            trouble.append(f"{name} on fresh seed {seed}: {result.status}: {result.reason}")
            say(trouble[-1])
            continue
        scores[seed] = result.score
        say(f"{name} on fresh seed {seed}: {campaign.experiment.metric.name} {result.score:.6f}")
    return {seed: scores[seed] for seed in seeds if seed in scores}


def _on_holdout(
    campaign: Campaign, champion: Champion, say: Say, trouble: list[str]
) -> dict[int, float]:
    if campaign.experiment.run is not None:
        return {}
    runner, runs = campaign.runner, _runs(campaign, champion)
    scores = _scores(runs, Purpose.HOLDOUT)
    attempt, name = _attempt(campaign, champion)
    for run in runs:
        if run.purpose not in SCORING or run.status != "ok" or run.seed in scores:
            continue
        checkpoint = runner.checkpoint(run)
        if checkpoint is None:
            trouble.append(f"{name}, seed {run.seed}: its checkpoint is gone, no holdout score")
            continue
        files = runner.read(champion.commit)
        result = runner.run(attempt, files, run.seed, Purpose.HOLDOUT, checkpoint=checkpoint)
        if result.score is None:
            trouble.append(f"{name}, seed {run.seed}, holdout: {result.status}: {result.reason}")
            continue
        scores[run.seed] = result.score
        say(f"{name}, seed {run.seed}: holdout scored")
    return scores


def _attempt(campaign: Campaign, champion: Champion) -> tuple[WorkingAttempt, str]:
    record = campaign.ledger.attempt(champion.attempt_id)
    name = "baseline" if record.kind == "baseline" else f"{record.name} {record.title}"
    return WorkingAttempt(record, parent_commit=champion.commit), name


def _runs(campaign: Campaign, champion: Champion) -> list[Run]:
    """Return a champion's runs; the baseline's are those of every calibration attempt."""
    if champion.version > 1:
        return list(campaign.ledger.attempt(champion.attempt_id).runs)
    attempts = [attempt for attempt in campaign.ledger.attempts() if attempt.kind == "baseline"]
    return [run for attempt in attempts for run in attempt.runs]


def _scores(runs: Sequence[Run], purpose: Purpose) -> dict[int, float]:
    return {run.seed: run.score for run in runs if run.purpose is purpose and run.score is not None}
