"""Replay the early-stop rule on the loss curves of real campaigns.

    python benchmarks/earlystop.py LEDGER.sqlite [LEDGER.sqlite ...] [--quick]

For every finished trial of a mutation: where would it have been given up, and was it a winner
(kept, or better than its champion on that seed)? Shows what the rule saves, what it would have
cost, and the same for bolder margins. ``--quick`` is accepted and changes nothing.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from pytest_autoresearch.ledger import Ledger
from pytest_autoresearch.trial import earlystop
from pytest_autoresearch.trial.earlystop import Curve


def pairs(path: Path) -> list[tuple[float, Curve, Curve]]:
    """Gain, curve, and the champion's curve on the same seed, of every trial that has both."""
    ledger = Ledger.open(path.parent.parent.parent, path.parent.name)
    slots = {slot.id: slot for slot in ledger.slots()}
    baseline = [t for s in slots.values() if s.kind == "baseline" for t in s.own_trials]
    found = []
    for slot in slots.values():
        champion = slots.get(slot.champion_before or 0)
        if slot.kind == "baseline" or champion is None:
            continue
        known = baseline if champion.kind == "baseline" else champion.own_trials
        curves = {t.seed: t for t in known if t.curve and t.score is not None}
        for trial in slot.own_trials:
            other = curves.get(trial.seed)
            if other is not None and trial.curve and trial.score is not None:
                assert other.score is not None
                gain = slot.gain if slot.verdict == "keep" else other.score - trial.score
                found.append((gain or 0.0, trial.curve, other.curve))
    return found


def given_up(curve: Curve, champion: Curve) -> float | None:
    """Share of the budget at which the rule ends a run, or None."""
    for n in range(1, len(curve) + 1):
        if curve[n - 1][0] >= earlystop.FROM and earlystop.hopeless(curve[:n], champion):
            return curve[n - 1][0]
    return None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledgers", nargs="+", type=Path)
    parser.add_argument("--quick", action="store_true")
    runs = [pair for path in parser.parse_args().ledgers for pair in pairs(path)]
    winners = sum(gain > 0 for gain, _, _ in runs)
    print(f"{len(runs)} trials with curves, {winners} better than their champion")
    print(f"{'margin':>8}{'given up':>10}{'winners':>9}{'budget saved':>14}")
    shipped, result = earlystop.MARGIN, {}
    for margin in (shipped, 0.10, 0.05, 0.02):
        earlystop.MARGIN = margin
        ends = [(gain, given_up(curve, champion)) for gain, curve, champion in runs]
        stopped = [(gain, at) for gain, at in ends if at is not None]
        lost = sum(gain > 0 for gain, _ in stopped)
        saved = sum(1 - at for _, at in stopped) / max(1, len(runs))
        print(f"{margin:8.2f}{len(stopped):10}{lost:9}{saved:14.1%}")
        if margin == shipped:
            result = {
                "trials": len(runs),
                "winners": winners,
                "given_up": len(stopped),
                "winners_given_up": lost,
                "saved_share": round(saved, 4),
            }
    print(json.dumps(result))


if __name__ == "__main__":
    main()
