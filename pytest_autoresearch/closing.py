"""How a campaign ends: is the gain still there on seeds that nobody chose by, and on the holdout?

Whatever was kept was kept because it did well on certain seeds and on the validation text, so the
score it was kept with flatters it. Champions are trained here on fresh seeds, in pairs, and their
saved checkpoints are scored on a split that no trial, no prompt and no live page has seen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from .experiment import Metric
from .judge import SIMPLER, Noise, Prior, estimate_noise
from .records import CONFIRM, HOLDOUT, OWN, PRUNE
from .slots import Slot

if TYPE_CHECKING:
    from .campaign import Campaign
    from .ledger import Ledger
    from .records import Champion, SlotRecord, TrialRecord

FRESH = 500
"""Offset of the fresh seeds from the campaign's; calibration and replicates never get so far."""

NORMAL_95 = 1.959964
"""Two-sided 95 % in standard deviations of a normal law; turned into a t-quantile by the noise."""


@dataclass(frozen=True)
class Gain:
    """A gain over paired seeds, positive is better.

    Attributes:
        gain: Mean difference, in the metric's unit.
        low, high: 95 % interval of it.
        n: Pairs.
    """

    gain: float
    low: float
    high: float
    n: int


@dataclass(frozen=True)
class Survival:
    """Whether a keep is still one on fresh seeds.

    Attributes:
        slot: Ledger row of the kept slot.
        name, title: Of the slot.
        claimed: Gain it was kept with.
        gain: Mean gain over the champion before it, on fresh seeds; None if it has no score there.
        held: Whether that gain is positive; of what was kept for being equal and simpler, whether
            it is not behind by more than what counted as equal.
    """

    slot: int
    name: str
    title: str
    claimed: float
    gain: float | None
    held: bool


@dataclass(frozen=True)
class Closing:
    """What is left of a campaign's gain; stored as the ledger's fact ``closing``.

    Attributes:
        champion: Version of the last champion.
        seeds: The fresh seeds.
        kept: Gain of the last over the first champion by the pairs that its keeps were judged by.
        confirmed: The same on the fresh seeds; None if either has no score there.
        holdout: The same from the saved checkpoints on the holdout; None without one.
        keeps: Of every keep that was examined.
        trouble: Why something could not be measured, one line each.
    """

    champion: int
    seeds: tuple[int, ...]
    kept: float
    confirmed: Gain | None = None
    holdout: Gain | None = None
    keeps: tuple[Survival, ...] = ()
    trouble: tuple[str, ...] = field(default=())


def paired_gain(differences: Sequence[float], noise: Noise) -> Gain | None:
    """Mean of paired gains with its 95 % interval.

    The campaign's noise was pooled from mutations that differ a little from their champion. What
    the first and the last one differ by may scatter more, so these pairs are pooled with it.

    Args:
        differences: Gains seed by seed, positive is better.
        noise: Standard deviation of one of them, as the campaign knows it.

    Returns:
        None without differences.
    """
    if not differences:
        return None
    n = len(differences)
    mean = math.fsum(differences) / n
    noise = estimate_noise([dict(enumerate(differences))], Prior(noise.sigma, noise.freedom))
    half = noise.bar(NORMAL_95) * noise.sigma / math.sqrt(n)
    return Gain(mean, mean - half, mean + half, n)


def close(
    campaign: Campaign,
    seeds: int,
    *,
    everyone: bool = False,
    say: Callable[[str], object] = lambda line: None,
) -> Closing | None:
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
    first, last, noise = champions[0], champions[-1], campaign.trials.noise()

    def gain(of: dict[int, dict[int, float]], new: Champion, old: Champion) -> Gain | None:
        gains = campaign.experiment.metric.gain
        a, b = of[new.version], of[old.version]
        return paired_gain([gains(a[seed], b[seed]) for seed in a if seed in b], noise)

    survivals = []
    for old, new in itertools.pairwise(examined):
        slot = campaign.ledger.slot(new.slot_id)
        again = gain(scores, new, old)
        if everyone or len(champions) == 2:
            survivals.append(
                Survival(
                    slot.id,
                    slot.name,
                    slot.title,
                    slot.gain or 0.0,
                    again.gain if again else None,
                    again is not None and _holds(slot, again, noise, campaign.experiment.metric),
                )
            )
    closing = Closing(
        champion=last.version,
        seeds=fresh,
        kept=kept_gain(campaign.ledger),
        confirmed=gain(scores, last, first),
        holdout=gain(held_out, last, first),
        keeps=tuple(survivals),
        trouble=tuple(trouble),
    )
    campaign.ledger.set_meta("closing", asdict(closing))
    return closing


def _holds(slot: SlotRecord, again: Gain, noise: Noise, metric: Metric) -> bool:
    """Whether a keep is still what it was kept for: better, or equal and simpler."""
    equal = slot.kind == PRUNE
    if slot.score is not None and slot.bar is not None and slot.gain is not None:
        # such a bar lies behind the champion's score
        equal |= metric.gain(slot.score, slot.bar) > slot.gain + 1e-9 * abs(slot.score)
    return again.gain > (SIMPLER * noise.sigma / math.sqrt(again.n) if equal else 0.0)


def kept_gain(ledger: Ledger) -> float:
    """Return the sum of the paired gains that the champion's keeps were kept with."""
    slots = [ledger.slot(champion.slot_id) for champion in ledger.champions()[1:]]
    return math.fsum(slot.gain or 0.0 for slot in slots)


def _on_fresh_seeds(
    campaign: Campaign,
    champion: Champion,
    seeds: Sequence[int],
    say: Callable[[str], object],
    trouble: list[str],
) -> dict[int, float]:
    on_cuda = campaign.trials.device.kind == "cuda"
    known = [t for t in _trials(campaign, champion) if t.device.startswith("cuda") == on_cuda]
    done = _scores(known, CONFIRM)
    slot, name = _slot(campaign, champion)
    for seed in seeds:
        if seed in done:
            continue
        result = campaign.trials.run(slot, campaign.trials.read(champion.commit), seed, CONFIRM)
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
    trials = _trials(campaign, champion)
    done = _scores(trials, HOLDOUT)
    slot, name = _slot(campaign, champion)
    for trial in trials:
        saved = trial.purpose in OWN and trial.status == "ok"
        if not saved or trial.seed in done:
            continue
        checkpoint = campaign.trials.checkpoint(trial)
        if checkpoint is None:
            trouble.append(f"{name}, seed {trial.seed}: its checkpoint is gone, no holdout score")
            continue
        result = campaign.trials.run(
            slot,
            campaign.trials.read(champion.commit),
            trial.seed,
            HOLDOUT,
            phase="rescore",
            split="holdout",
            trial_id=checkpoint.parent.name,
            champion_losses=None,
        )
        if result.score is None:
            trouble.append(f"{name}, seed {trial.seed}, holdout: {result.status}: {result.reason}")
            continue
        done[trial.seed] = result.score
        say(f"{name}, seed {trial.seed}: holdout scored")
    return done


def _slot(campaign: Campaign, champion: Champion) -> tuple[Slot, str]:
    record = campaign.ledger.slot(champion.slot_id)
    name = "baseline" if record.kind == "baseline" else f"{record.name} {record.title}"
    return Slot(record, parent_commit=champion.commit), name


def _trials(campaign: Campaign, champion: Champion) -> list[TrialRecord]:
    """A champion's trials; the baseline's are spread over the slots of its calibration."""
    if champion.version > 1:
        return list(campaign.ledger.slot(champion.slot_id).trials)
    slots = [slot for slot in campaign.ledger.slots() if slot.kind == "baseline"]
    return [trial for slot in slots for trial in slot.trials]


def _scores(trials: Sequence[TrialRecord], purpose: str) -> dict[int, float]:
    return {t.seed: t.score for t in trials if t.purpose == purpose and t.score is not None}


def lines(facts: dict[str, Any], metric: str) -> Iterator[str]:
    """Say what the ledger's fact ``closing`` holds, for people."""
    if confirmed := facts.get("confirmed"):
        yield (
            f"confirmed gain  {_interval(confirmed)} {metric} on {confirmed['n']} fresh seed(s); "
            f"it was kept with {facts['kept']:+.6f}"
        )
    if holdout := facts.get("holdout"):
        yield f"holdout gain    {_interval(holdout)} {metric} on text that no trial has seen"
    keeps = facts.get("keeps", ())
    if keeps:
        held = sum(bool(keep["held"]) for keep in keeps)
        yield f"keeps that hold on fresh seeds: {held} of {len(keeps)}"
        for keep in keeps:
            again = "no score" if keep["gain"] is None else f"{keep['gain']:+.6f}"
            yield (
                f"  {'holds' if keep['held'] else 'FALLS'}  {keep['name']} {keep['title']}: "
                f"kept with {keep['claimed']:+.6f}, now {again}"
            )
    yield from facts.get("trouble", ())


def _interval(gain: dict[str, Any]) -> str:
    return f"{gain['gain']:+.6f} [{gain['low']:+.6f}, {gain['high']:+.6f}]"


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
