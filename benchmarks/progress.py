"""True progress per GPU-hour: what each verdict rule gains, and how much of it is not real.

    python benchmarks/progress.py [--quick]

Simulated nights of a fixed number of trainings, so that a rule which replicates tries fewer
mutations. Effects are drawn from mixes in the shape of published logs: few mutations help, the
sizes are skewed (in one published night 3 of 125 mutations made 69 % of the gain), most hurt, many
do nothing. All arms have the same gates in front of them; what duplicates would cost an arm
without a gate is shown apart. The frontier shows other bounds of the sequential test.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from simulation import Night, night

from pytest_autoresearch.judge import HOPE, KEEP, Judge, Prior

TRAININGS = 125
DUPLICATES = 0.22
"""Share of exact repeats in a published agent's thousand trials (the smaller of two figures)."""


@dataclass(frozen=True)
class Mix:
    """A distribution of true gains, in units of the noise of one pair.

    Attributes:
        helps, size: Share of mutations that help, and the mean of their exponential gain.
        idle: Share that does next to nothing (normal, 0.15 wide).
        harm: Mean of the exponential loss of the rest.
    """

    helps: float
    size: float
    idle: float
    harm: float

    def draw(self, sigma: float) -> Callable[[random.Random], float]:
        """Return what draws one mutation's true gain, in the metric's unit."""

        def effect(rng: random.Random) -> float:
            lot = rng.random()
            if lot < self.helps:
                return sigma * rng.expovariate(1 / self.size)
            if lot < self.helps + self.idle:
                return sigma * rng.gauss(0, 0.15)
            return -sigma * rng.expovariate(1 / self.harm)

        return effect


MIXES = {
    # a fresh trainer on a fast device: large effects beside small noise
    "early night": Mix(helps=0.10, size=4.0, idle=0.35, harm=8.0),
    # 4 % keeps in 854 trials of a tuned champion: what is left is small
    "late night": Mix(helps=0.06, size=2.0, idle=0.44, harm=6.0),
    # the CPU default: effects of 0.5 to 3 sigma
    "small budget": Mix(helps=0.12, size=1.5, idle=0.38, harm=4.0),
}

FRONTIER: dict[str, tuple[tuple[float, ...], tuple[float, ...]]] = {
    "shipped": (KEEP, HOPE),
    "early hope": ((2.8, 2.3, 2.0, 1.8), (0.5, 0.9, 1.3, 1.8)),
    "one replicate": ((2.8, 2.3), (1.2, 2.3)),
    "bold": ((2.4, 2.1, 2.0, 1.7), (1.3, 1.5, 1.65, 1.7)),
    "patient": ((2.6, 2.2, 2.0, 1.8, 1.7, 1.6), (1.2, 1.4, 1.5, 1.6, 1.6, 1.6)),
    "shy": ((3.0, 2.8, 2.6, 2.5), (1.2, 1.5, 1.8, 2.5)),
    "ten percent": ((1.65, 1.2, 1.15), (0.75, 1.2, 1.15)),
}


def nights(judge: Judge, mix: Mix, count: int, trainings: int) -> list[Night]:
    """Simulate `count` nights; the noise is the prior's, and the judge does not know that."""
    sigma = Prior().sigma
    calibrate = 1 if judge.rule == "greedy" else 3
    return [
        night(
            judge, random.Random(n), sigma=sigma, effect=mix.draw(sigma), trials=trainings,
            calibrate=calibrate,
        )
        for n in range(count)
    ]  # fmt: skip


def row(found: Sequence[Night]) -> dict[str, float]:
    """Summarise nights of one rule."""
    keeps = sum(one.keeps for one in found)
    return {
        "gain": statistics.fmean(one.true_gain for one in found),
        "claimed": statistics.fmean(one.claimed_gain for one in found),
        "keeps": keeps / len(found),
        "not_real": sum(one.not_real for one in found) / max(1, keeps),
        "slots": statistics.fmean(one.slots for one in found),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true")
    count = 100 if parser.parse_args().quick else 2000
    ratios, shares = [], []
    for name, mix in MIXES.items():
        greedy = row(nights(Judge("greedy"), mix, count, TRAININGS))
        blind = row(nights(Judge("greedy"), mix, count, round(TRAININGS * (1 - DUPLICATES))))
        strict = row(nights(Judge("strict"), mix, count, TRAININGS))
        table = {"greedy, no gate": blind, "greedy": greedy, "strict": strict}
        for title, (keep, hope) in FRONTIER.items():
            judge = Judge("confirm", keep=keep, hope=hope)
            table[f"confirm, {title}"] = row(nights(judge, mix, count, TRAININGS))
        print(f"\n{name}: {TRAININGS} trainings, {count} nights")
        print(
            f"{'rule':24}{'true gain':>11}{'of greedy':>11}{'claimed':>10}{'keeps':>7}"
            f"{'not real':>10}{'slots':>7}"
        )
        for title, one in table.items():
            print(
                f"{title:24}{one['gain']:11.4f}{one['gain'] / greedy['gain']:11.0%}"
                f"{one['claimed']:10.4f}{one['keeps']:7.1f}{one['not_real']:10.0%}{one['slots']:7.0f}"
            )
        ratios.append(table["confirm, shipped"]["gain"] / greedy["gain"])
        shares.append(table["confirm, shipped"]["not_real"])
    print(
        json.dumps(
            {
                "true_gain_ratio": round(min(ratios), 3),
                "not_real_share": round(max(shares), 3),
                "by_mix": {
                    name: [round(r, 3), round(s, 3)]
                    for name, r, s in zip(MIXES, ratios, shares, strict=True)
                },
            }
        )
    )


if __name__ == "__main__":
    main()
