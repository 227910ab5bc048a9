"""How a campaign ends: is the gain still there on seeds that nobody chose by, and on the holdout?

Whatever was kept was kept because it did well on certain seeds and on the validation text, so the
score it was kept with flatters it. Champions are trained here on fresh seeds, in pairs, and their
saved checkpoints are scored on a split that no trial, no prompt and no live page has seen.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from typing import TYPE_CHECKING

from ..core.records import CONFIRM, HOLDOUT, OWN
from ..judge.confirmation import Confirmation, Gain, Survival, _holds, kept_gain, paired_gain
from .attempt import WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Champion
    from ..core.run import Run
    from .loop import Campaign

FRESH = 500
"""Offset of the fresh seeds from the campaign's; calibration and replicates never get so far."""


def close(
    campaign: Campaign,
    seeds: int,
    *,
    everyone: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Confirmation | None:
    """Confirm the champion against the baseline and write down what stands.

    Trials that an earlier call made are used again, so a closing that was cut off goes on.

    Args:
        campaign: With a champion.
        seeds: How many fresh seeds each champion is trained on.
        everyone: Examine every champion there was, not only the first and the last.
        say: Told what is being done, line by line.

    Returns:
        None when nothing was kept yet.

    Raises:
        InfrastructureFailure: A trial could not be run.
        Interrupted: The session was asked to stop.
    """
    champions = campaign.ledger.champions()
    if len(champions) < 2:
        return None
    examined = champions if everyone else [champions[0], champions[-1]]
    fresh = tuple(1000 * campaign.rules.seed + FRESH + i for i in range(seeds))
    trouble: list[str] = []
    scores = {c.version: _on_fresh_seeds(campaign, c, fresh, say, trouble) for c in examined}
    held_out = {c.version: _on_holdout(campaign, c, say, trouble) for c in examined}
    first, last, noise = champions[0], champions[-1], campaign.runner.noise()

    def gain(of: dict[int, dict[int, float]], new: Champion, old: Champion) -> Gain | None:
        gains = campaign.experiment.metric.gain
        a, b = of[new.version], of[old.version]
        return paired_gain([gains(a[seed], b[seed]) for seed in a if seed in b], noise)

    survivals = []
    for old, new in itertools.pairwise(examined):
        attempt = campaign.ledger.attempt(new.attempt_id)
        again = gain(scores, new, old)
        if everyone or len(champions) == 2:
            survivals.append(
                Survival(
                    attempt.id,
                    attempt.name,
                    attempt.title,
                    attempt.gain or 0.0,
                    again.gain if again else None,
                    again is not None and _holds(attempt, again, noise, campaign.experiment.metric),
                )
            )
    confirmation = Confirmation(
        champion=last.version,
        seeds=fresh,
        kept=kept_gain(campaign.ledger.attempts(), champions),
        confirmed=gain(scores, last, first),
        holdout=gain(held_out, last, first),
        keeps=tuple(survivals),
        trouble=tuple(trouble),
    )
    campaign.ledger.set_meta("confirmation", asdict(confirmation))
    return confirmation


def _on_fresh_seeds(
    campaign: Campaign,
    champion: Champion,
    seeds: Sequence[int],
    say: Callable[[str], object],
    trouble: list[str],
) -> dict[int, float]:
    on_cuda = campaign.runner.device.kind == "cuda"
    known = [t for t in _runs(campaign, champion) if t.device.startswith("cuda") == on_cuda]
    done = _scores(known, CONFIRM)
    attempt, name = _attempt(campaign, champion)
    for seed in seeds:
        if seed in done:
            continue
        result = campaign.runner.run(attempt, campaign.runner.read(champion.commit), seed, CONFIRM)
        if result.score is None:
            trouble.append(f"{name} on fresh seed {seed}: {result.status}: {result.reason}")
            say(trouble[-1])
            continue
        done[seed] = result.score
        say(f"{name} on fresh seed {seed}: {campaign.experiment.metric.name} {result.score:.6f}")
    return {seed: done[seed] for seed in seeds if seed in done}


def _on_holdout(
    campaign: Campaign, champion: Champion, say: Callable[[str], object], trouble: list[str]
) -> dict[int, float]:
    if campaign.experiment.run is not None:
        return {}
    runs = _runs(campaign, champion)
    done = _scores(runs, HOLDOUT)
    attempt, name = _attempt(campaign, champion)
    for run in runs:
        saved = run.purpose in OWN and run.status == "ok"
        if not saved or run.seed in done:
            continue
        checkpoint = campaign.runner.checkpoint(run)
        if checkpoint is None:
            trouble.append(f"{name}, seed {run.seed}: its checkpoint is gone, no holdout score")
            continue
        result = campaign.runner.run(
            attempt,
            campaign.runner.read(champion.commit),
            run.seed,
            HOLDOUT,
            phase="rescore",
            split="holdout",
            run_id=checkpoint.parent.name,
            champion_losses=None,
        )
        if result.score is None:
            trouble.append(f"{name}, seed {run.seed}, holdout: {result.status}: {result.reason}")
            continue
        done[run.seed] = result.score
        say(f"{name}, seed {run.seed}: holdout scored")
    return done


def _attempt(campaign: Campaign, champion: Champion) -> tuple[WorkingAttempt, str]:
    record = campaign.ledger.attempt(champion.attempt_id)
    name = "baseline" if record.kind == "baseline" else f"{record.name} {record.title}"
    return WorkingAttempt(record, parent_commit=champion.commit), name


def _runs(campaign: Campaign, champion: Champion) -> list[Run]:
    """A champion's trials; the baseline's are spread over the attempts of its calibration."""
    if champion.version > 1:
        return list(campaign.ledger.attempt(champion.attempt_id).runs)
    attempts = [attempt for attempt in campaign.ledger.attempts() if attempt.kind == "baseline"]
    return [run for attempt in attempts for run in attempt.runs]


def _scores(runs: Sequence[Run], purpose: str) -> dict[int, float]:
    return {t.seed: t.score for t in runs if t.purpose == purpose and t.score is not None}


@contextmanager
def forgiving(say: Callable[[str], object]) -> Iterator[None]:
    """Let a closing that cannot be done leave the night's results alone, with a word why."""
    try:
        yield
    except (Exception, KeyboardInterrupt) as error:  # a full disk, a commit that is gone, …
        reason = str(error) or type(error).__name__
        if isinstance(error, KeyboardInterrupt):
            reason = "interrupted"
        say(f"closing not finished: {reason}; go on with: python -m pytest_autoresearch verify")
