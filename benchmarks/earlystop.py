"""Replay the early-stop rules on the loss curves of real campaigns.

    python benchmarks/earlystop.py LEDGER.sqlite [LEDGER.sqlite ...] [--quick]

For every finished trial of a mutation: where would it have been given up, and was it a winner
(kept, or better than its champion on that seed)? Shows what the rule saves, what it would have
cost, and the same for bolder margins: once for all trials, and once for those that a campaign holds
the rule against, whose code differs from the champion's in literals only. Runs that a campaign gave
up itself have no score, and are counted apart. Ledgers are read from copies; the same campaign
given twice counts once. ``--quick`` is accepted and changes nothing.
"""

from __future__ import annotations

import argparse
import json
import sqlite3
import tempfile
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

from pytest_autoresearch.core.records import SlotRecord, TrialRecord
from pytest_autoresearch.ledger.git import Repository, RepositoryError
from pytest_autoresearch.ledger.store import Ledger
from pytest_autoresearch.source.fingerprint import shape
from pytest_autoresearch.training import earlystop
from pytest_autoresearch.training.earlystop import Curve

MARGINS = (0.15, 0.10, earlystop.MARGIN, 0.02, 0.0)


@dataclass(frozen=True)
class Run:
    """One finished trial beside its champion's on the same seed.

    Attributes:
        gain: Over the champion; None where the campaign gave the run up.
        curve: Its own.
        champion: The champion's.
        comparable: Whether the campaign would hold the rule against it.
    """

    gain: float | None
    curve: Curve
    champion: Curve
    comparable: bool


class Source:
    """A campaign's ledger, copied, and the files of its commits."""

    def __init__(self, path: Path, folder: Path) -> None:
        copy = folder / ".autoresearch" / "copy" / path.name
        copy.parent.mkdir(parents=True)
        with (
            closing(sqlite3.connect(f"file:{path.absolute()}?mode=ro", uri=True)) as source,
            closing(sqlite3.connect(copy)) as target,
        ):
            source.backup(target)
        self.ledger = Ledger.open(folder, "copy")
        facts = self.ledger.meta("campaign") or {}
        self.started = facts.get("started")
        self._files = facts.get("files", ["train.py"])
        self._root = path.absolute().parent.parent.parent

    def skeleton(self, slot: SlotRecord) -> str | None:
        """A slot's code without its literals; None where the commit is gone."""
        try:
            return shape(Repository.open(self._root).read(slot.commit, self._files)).skeleton
        except (RepositoryError, OSError, ValueError):
            return None

    def runs(self) -> list[Run]:
        """Every trial of a mutation whose champion has a curve on its seed."""
        slots = {slot.id: slot for slot in self.ledger.slots()}
        baseline = [t for s in slots.values() if s.kind == "baseline" for t in s.own_trials]
        found = []
        for slot in slots.values():
            champion = slots.get(slot.champion_before or 0)
            if slot.kind == "baseline" or champion is None or not slot.commit:
                continue
            known = baseline if champion.kind == "baseline" else champion.own_trials
            others = {t.seed: t for t in known if t.curve and t.score is not None}
            pairs = [(t, others[t.seed]) for t in slot.own_trials if t.seed in others and t.curve]
            if pairs:
                own = self.skeleton(slot)
                comparable = own is not None and own == self.skeleton(champion)
                found += [_run(slot, trial, other, comparable) for trial, other in pairs]
        return found


def _run(slot: SlotRecord, trial: TrialRecord, other: TrialRecord, comparable: bool) -> Run:
    gain = None
    if trial.score is not None and other.score is not None:
        kept = slot.verdict == "keep" and slot.gain is not None
        gain = slot.gain if kept else other.score - trial.score
    return Run(gain, trial.curve, other.curve, comparable)


def given_up(run: Run) -> float | None:
    """Share of the budget at which a rule ends a run, or None."""
    looked = 0.0
    for n, (fraction, _) in enumerate(run.curve, 1):
        if fraction - looked > earlystop.LOOK_EVERY:
            looked = fraction
            so_far = run.curve[:n]
            if earlystop.exploded(so_far) or earlystop.hopeless(so_far, run.champion):
                return fraction
    return None


def replay(runs: Sequence[Run], margin: float) -> tuple[int, int, float]:
    """Return (given up, winners among them, share of all training saved) under a margin."""
    shipped, earlystop.MARGIN = earlystop.MARGIN, margin
    try:
        ends = [(run.gain, given_up(run)) for run in runs]
    finally:
        earlystop.MARGIN = shipped
    stopped = [(gain, at) for gain, at in ends if at is not None]
    lost = sum(gain is not None and gain > 0 for gain, _ in stopped)
    return len(stopped), lost, sum(1 - at for _, at in stopped) / max(1, len(runs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("ledgers", nargs="+", type=Path)
    parser.add_argument("--quick", action="store_true")
    runs: list[Run] = []
    campaigns = set()
    with tempfile.TemporaryDirectory() as folder:
        for number, path in enumerate(parser.parse_args().ledgers):
            source = Source(path, Path(folder) / str(number))
            if source.started not in campaigns:
                campaigns.add(source.started)
                runs += source.runs()
    pools = {
        "all trials": [run for run in runs if run.gain is not None],
        "only literals differ": [run for run in runs if run.gain is not None and run.comparable],
    }
    result: dict[str, object] = {"campaigns": len(campaigns)}
    for title, pool in pools.items():
        winners = sum(run.gain is not None and run.gain > 0 for run in pool)
        print(f"{title}: {len(pool)} with curves, {winners} better than their champion")
        print(f"{'margin':>8}{'given up':>10}{'winners':>9}{'budget saved':>14}")
        for margin in MARGINS:
            stopped, lost, saved = replay(pool, margin)
            print(f"{margin:8.2f}{stopped:10}{lost:9}{saved:14.1%}")
            if margin == earlystop.MARGIN:
                result |= {
                    "trials": len(pool),
                    "winners": winners,
                    "given_up": stopped,
                    "winners_given_up": lost,
                    "saved_share": round(saved, 4),
                }
    unfinished = [run for run in runs if run.gain is None]
    print(f"given up by the campaigns themselves: {len(unfinished)}, whose end nobody knows")
    print(json.dumps({**result, "given_up_live": len(unfinished)}))


if __name__ == "__main__":
    main()
