"""Measure whether the gain of a campaign transfers to a longer budget or a larger model.

Gains of short runs of a small model may vanish in long runs of a large one. The first and the last
champion are trained again, in pairs, under the scaled budget and with scaled constants.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path

from ..campaign.attempt import WorkingAttempt
from ..campaign.loop import Campaign
from ..campaign.open import open_campaign
from ..core.errors import UsageError
from ..core.records import Gain, Transfer
from ..core.run import Purpose
from ..judge.confirmation import kept_gain, paired_gain
from ..source.search_space import find, substitute


def transfer(
    root: Path, tag: str | None, longer: float, scale: Mapping[str, float], seeds: int
) -> int:
    """Train first and last champion under other conditions and print the gain there.

    Args:
        root: Folder of the project.
        tag: Of the campaign; None for the name of the current git branch.
        longer: Factor on the training budget.
        scale: Factors on constants of the entry file, by name.
        seeds: Number of pairs.

    Returns:
        Exit code: 0 if the gain is positive there too, 1 if not.
    """
    with open_campaign(root, tag, "transfer") as campaign:
        gain = measure(campaign, longer, scale, seeds)
    return 0 if gain is not None and gain.gain > 0 else 1


def measure(
    campaign: Campaign, longer: float, scale: Mapping[str, float], seeds: int
) -> Gain | None:
    """Measure the paired gain under the scaled conditions; None if the champion has no score there.

    Raises:
        UsageError: Nothing was kept, a constant cannot be scaled, or the baseline has no score
            there.
    """
    runner, facts, metric = campaign.runner, campaign.facts, campaign.experiment.metric
    champions = campaign.ledger.champions()
    if len(champions) < 2:
        raise UsageError("nothing was kept, so there is nothing to transfer")
    first, last = champions[0], champions[-1]
    budget = replace(facts.budget, amount=longer * facts.budget.amount)
    where = ", ".join([f"budget {budget}", *(f"{k} x {v:g}" for k, v in scale.items())])
    here = kept_gain(campaign.ledger.attempts(), champions)
    print(f"here: {here:+.6f} by the pairs it was kept with, under {facts.budget}")
    print(f"there: {where}", flush=True)
    files = {c.version: scaled(campaign, runner.read(c.commit), scale) for c in (first, last)}
    gains: list[float] = []
    for seed in [*sorted(first.scores), *facts.fresh_seeds(seeds)][:seeds]:
        scores = []
        for champion in (first, last):
            attempt = WorkingAttempt(
                campaign.ledger.attempt(champion.attempt_id), parent_commit=champion.commit
            )
            code = files[champion.version]
            run = runner.run(attempt, code, seed, Purpose.TRANSFER, budget=budget)
            if run.score is None:
                print(f"  seed {seed}: {run.status}: {run.reason}")
                if champion is first:
                    raise UsageError("the baseline has no score there, so nothing is compared")
                print(f"does not transfer: the champion has no score on seed {seed}")
                return None
            scores.append(run.score)
        gains.append(metric.gain(scores[1], scores[0]))
        print(f"  seed {seed}: {scores[0]:.6f} -> {scores[1]:.6f} ({gains[-1]:+.6f})", flush=True)
    gain = paired_gain(gains, runner.noise())
    assert gain is not None
    campaign.ledger.save_transfer(
        Transfer(**asdict(gain), champion=last.version, where=where)
    )
    verdict = "transfers" if gain.gain > 0 else "does not transfer"
    print(f"{verdict}: {gain.gain:+.6f} {metric.name} over {gain.n} seed(s)")
    return gain


def scaled(
    campaign: Campaign, files: Mapping[str, str], scale: Mapping[str, float]
) -> dict[str, str]:
    """Return the files with constants of the entry file multiplied.

    Raises:
        UsageError: A constant is not a number of the entry file.
    """
    entry = campaign.experiment.files[0]
    space = {p.name: p for p in find(files[entry], cuda=campaign.runner.device.kind == "cuda")}
    values: dict[str, int | float] = {}
    for name, factor in scale.items():
        parameter = space.get(name)
        if parameter is None or isinstance(parameter.value, str | bool):
            numbers = [
                k for k, v in space.items() if k.isupper() and not isinstance(v.value, str | bool)
            ]
            raise UsageError(
                f"--scale {name}={factor:g}: {entry} has no such number; there are: "
                + ", ".join(numbers)
            )
        value = parameter.value * factor
        values[name] = round(value) if isinstance(parameter.value, int) else value
    return {**files, entry: substitute(files[entry], space, values)}
