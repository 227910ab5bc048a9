"""Do the keeps survive a longer budget, or a larger model?

Gains found in short runs of a small model may be gone in long runs of a large one. The first and
the last champion are trained again, in pairs, under the scaled budget and with scaled constants.
"""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

import pytest

from ..campaign.attempt import WorkingAttempt
from ..campaign.confirm import FRESH
from ..campaign.loop import Campaign
from ..campaign.open import FAILURES, opened
from ..core.experiment import Budget
from ..judge.confirmation import Gain, paired_gain
from ..source.search_space import find, turn

TRANSFER = "transfer"

FACT = "transfers"
"""The ledger's fact: what each condition that was tried came to, for the champion of then."""


def transfer(
    root: Path, tag: str | None, longer: float, scale: Mapping[str, float], seeds: int
) -> int:
    """Train first and last champion under other conditions and say whether the gain is there.

    Args:
        root: The project.
        tag: Of the campaign; None: the name of the current git branch.
        longer: Factor on the training budget.
        scale: Constant of the entry file to the factor it is multiplied by.
        seeds: Pairs.

    Returns:
        Exit code: 0 if the gain is positive there too, 1 if not, 4 if it could not be tried.
    """
    try:
        with opened(root, tag, TRANSFER) as campaign:
            gain = measure(campaign, longer, scale, seeds)
    except FAILURES as error:
        print(str(error) or "interrupted; run it again", file=sys.stderr)
        return 4
    return 0 if gain is not None and gain.gain > 0 else 1


def measure(
    campaign: Campaign, longer: float, scale: Mapping[str, float], seeds: int
) -> Gain | None:
    """Measure the paired gain under the scaled conditions; None if the champion has no score there.

    Raises:
        pytest.UsageError: Nothing was kept, a constant cannot be scaled, or the baseline itself has
            no score there.
    """
    champions = campaign.ledger.champions()
    if len(champions) < 2:
        raise pytest.UsageError("nothing was kept, so there is nothing to transfer")
    first, last, metric = champions[0], champions[-1], campaign.experiment.metric
    budget = replace(campaign.rules.budget, amount=longer * campaign.rules.budget.amount)
    where = ", ".join([f"budget {budget}", *(f"{k} x {v:g}" for k, v in scale.items())])
    print(f"here: {metric.gain(last.mean, first.mean):+.6f} under {campaign.rules.budget}")
    print(f"there: {where}", flush=True)
    files = {
        champion.version: scaled(campaign, campaign.runner.read(champion.commit), scale)
        for champion in (first, last)
    }
    gains: list[float] = []
    fresh = (1000 * campaign.rules.seed + FRESH + i for i in range(seeds))
    for seed in [*sorted(first.scores), *fresh][:seeds]:
        scores = []
        for champion in (first, last):
            attempt = WorkingAttempt(
                campaign.ledger.attempt(champion.attempt_id), parent_commit=champion.commit
            )
            score = _train(campaign, attempt, files[champion.version], seed, budget, longer)
            if score is None and champion is first:
                raise pytest.UsageError("the baseline has no score there, so nothing is compared")
            if score is None:
                print(f"does not transfer: the champion has no score on seed {seed}")
                return None
            scores.append(score)
        gains.append(metric.gain(scores[1], scores[0]))
        print(f"  seed {seed}: {scores[0]:.6f} -> {scores[1]:.6f} ({gains[-1]:+.6f})", flush=True)
    gain = paired_gain(gains, campaign.runner.noise())
    assert gain is not None
    told = {"champion": last.version, "where": where, **asdict(gain)}
    earlier = [t for t in campaign.ledger.meta(FACT) or [] if t["where"] != where]
    campaign.ledger.set_meta(FACT, [*earlier, told])
    verdict = "transfers" if gain.gain > 0 else "does not transfer"
    print(f"{verdict}: {gain.gain:+.6f} {metric.name} over {gain.n} seed(s)")
    return gain


def _train(
    campaign: Campaign,
    attempt: WorkingAttempt,
    files: Mapping[str, str],
    seed: int,
    budget: Budget,
    longer: float,
) -> float | None:
    limit = max(1.0, longer) * 2 * campaign.runner.wall_limit()
    result = campaign.runner.run(
        attempt,
        files,
        seed,
        TRANSFER,
        budget=budget,
        wall_limit_s=limit,
        scoring_cpu_limit_s=None,
        champion_losses=None,
    )
    if result.score is None:
        print(f"  seed {seed}: {result.status}: {result.reason}")
    return result.score


def scaled(
    campaign: Campaign, files: Mapping[str, str], scale: Mapping[str, float]
) -> dict[str, str]:
    """Return the files with constants of the entry file multiplied.

    Raises:
        pytest.UsageError: No such number is there.
    """
    entry = campaign.experiment.files[0]
    knobs = {k.name: k for k in find(files[entry], cuda=campaign.runner.device.kind == "cuda")}
    values: dict[str, int | float] = {}
    for name, factor in scale.items():
        knob = knobs.get(name)
        if knob is None or isinstance(knob.value, str | bool):
            numbers = [k for k, v in knobs.items() if not isinstance(v.value, str | bool)]
            raise pytest.UsageError(
                f"--scale {name}={factor:g}: {entry} has no such number; there are: "
                + ", ".join(number for number in numbers if number.isupper())
            )
        value = knob.value * factor
        values[name] = round(value) if isinstance(knob.value, int) else value
    return {**files, entry: turn(files[entry], knobs, values)}
