"""Confirm the gain of a campaign on fresh seeds and on the holdout.

A kept score is biased upwards: it was selected on certain seeds and on the validation text. So the
champions are trained in pairs on fresh seeds until the interval of the gain excludes zero, and the
checkpoints of these runs are scored on a split that no run, no prompt and no live page has shown.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean
from typing import TYPE_CHECKING

from ..core.records import Confirmation, Gain, Survival
from ..core.run import Purpose
from ..judge.confirmation import FEWEST, kept_gain, paired_gain, standing
from .attempt import WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Attempt, Champion
    from ..core.run import Run
    from .loop import Campaign

Say = Callable[[str], object]


def confirm(
    campaign: Campaign, most: int, *, everyone: bool = False, say: Say = lambda line: None
) -> Confirmation | None:
    """Confirm the champion on fresh seeds, and store the result; None without a keep.

    Runs of an earlier, interrupted confirmation are used again. With `everyone`, every keep is
    examined, not only all of them together.

    Args:
        campaign: The campaign.
        most: Fresh seeds at most; fewer are used where the interval excludes zero before.
        everyone: Whether every keep is compared with the champion before it, too.
        say: Prints a line.

    Raises:
        InfrastructureFailure: A run failed for a reason that is not the candidate's.
        Interrupted: The session was asked to stop.
    """
    champions = campaign.ledger.champions()
    if len(champions) < 2:
        return None
    return _Confirming(campaign, champions, most, everyone, say).run()


def forecast(campaign: Campaign, most: int) -> str:
    """Return how many trainings the examination of every keep takes, and about how long."""
    champions = campaign.ledger.champions()
    least = min(FEWEST, most)
    seconds = fmean(run.total_seconds for run in campaign.runner.calibration())
    low, high = (n * len(champions) for n in (least, most))
    return (
        f"{len(champions) - 1} keeps: {low} to {high} trainings of about {seconds:.0f} s each, "
        f"{low * seconds / 60:.0f} to {high * seconds / 60:.0f} minutes"
    )


class _Confirming:
    """One confirmation.

    Args:
        campaign, champions, most, say: See `confirm`.
        everyone: See `confirm`.
    """

    def __init__(
        self,
        campaign: Campaign,
        champions: Sequence[Champion],
        most: int,
        everyone: bool,
        say: Say,
    ) -> None:
        self.campaign, self.runner, self.say = campaign, campaign.runner, say
        self.metric, self.noise = campaign.experiment.metric, campaign.runner.noise()
        self.champions, self.everyone = champions, everyone
        self.whole = (champions[0], champions[-1])
        examined = everyone or len(champions) == 2
        self.steps = list(itertools.pairwise(champions)) if examined else []
        self.seeds = campaign.facts.fresh_seeds(most)
        self.trouble: list[str] = []
        self.scores = {c.version: self._scores(c, Purpose.CONFIRM) for c in champions}
        self.holdout = {c.version: self._scores(c, Purpose.HOLDOUT) for c in champions}

    def run(self) -> Confirmation:
        """Train until nothing is open or the seeds are used up; store and return the result."""
        for seed in self.seeds:
            open_pairs = [pair for pair in [self.whole, *self.steps] if self._is_open(pair, seed)]
            for champion in {c.version: c for pair in open_pairs for c in pair}.values():
                self._train(champion, seed)
        ledger, last = self.campaign.ledger, self.whole[1]
        attempts = {attempt.id: attempt for attempt in ledger.attempts()}
        whole = self._gain(self.whole)
        confirmation = Confirmation(
            champion=last.version,
            seeds=tuple(seed for seed in self.seeds if seed in self.scores[last.version]),
            kept=kept_gain(list(attempts.values()), self.champions),
            confirmed=whole,
            holdout=paired_gain(
                self._differences(self.holdout, self.whole)[: whole.n if whole else 0], self.noise
            ),
            keeps=tuple(self._survival(attempts[pair[1].attempt_id], pair) for pair in self.steps),
            trouble=tuple(self.trouble),
        )
        ledger.save_confirmation(confirmation)
        return confirmation

    def _survival(self, attempt: Attempt, pair: tuple[Champion, Champion]) -> Survival:
        again = self._gain(pair)
        word = standing(attempt, again, self.noise, self.metric) if again else "open"
        claimed = attempt.gain or 0.0
        return Survival(attempt.id, attempt.name, attempt.title, claimed, again, word)

    def _is_open(self, pair: tuple[Champion, Champion], seed: int) -> bool:
        """Whether a pair of champions is still to be trained on a seed."""
        gain = self._gain(pair)
        scored = all(seed in self.scores[champion.version] for champion in pair)
        return gain is None or gain.n < FEWEST or (gain.standing == "open" and not scored)

    def _gain(self, pair: tuple[Champion, Champion]) -> Gain | None:
        """Return the gain at the first look that excludes zero, else at the last one.

        Later seeds, trained for another pair, do not change it.
        """
        differences = self._differences(self.scores, pair)
        for n in range(FEWEST, len(differences)):
            gain = paired_gain(differences[:n], self.noise)
            if gain is not None and gain.standing != "open":
                return gain
        return paired_gain(differences, self.noise)

    def _differences(
        self, scores: Mapping[int, Mapping[int, float]], pair: tuple[Champion, Champion]
    ) -> list[float]:
        old, new = (scores[champion.version] for champion in pair)
        return [self.metric.gain(new[s], old[s]) for s in self.seeds if s in new and s in old]

    def _train(self, champion: Champion, seed: int) -> None:
        """Train a champion on a fresh seed and score its checkpoint on the holdout."""
        scores, held_out = self.scores[champion.version], self.holdout[champion.version]
        record = self.campaign.ledger.attempt(champion.attempt_id)
        name = "baseline" if record.kind == "baseline" else f"{record.name} {record.title}"
        attempt = WorkingAttempt(record, parent_commit=champion.commit)
        files = self.runner.read(champion.commit)
        checkpoint = next(
            (self.runner.checkpoint(run) for run in self._runs(champion, Purpose.CONFIRM)
             if run.seed == seed), None,
        )  # fmt: skip
        if seed not in scores:
            result = self.runner.run(attempt, files, seed, Purpose.CONFIRM)
            if result.score is None:
                self._fail(f"{name} on fresh seed {seed}: {result.status}: {result.reason}")
                return
            scores[seed], checkpoint = result.score, self.runner.checkpoint(result)
            self.say(f"{name} on fresh seed {seed}: {self.metric.name} {result.score:.6f}")
        if self.campaign.experiment.run is not None or seed in held_out:
            return
        if checkpoint is None:
            self._fail(f"{name}, seed {seed}: its checkpoint is gone, no holdout score")
            return
        result = self.runner.run(attempt, files, seed, Purpose.HOLDOUT, checkpoint=checkpoint)
        if result.score is None:
            self._fail(f"{name}, seed {seed}, holdout: {result.status}: {result.reason}")
            return
        held_out[seed] = result.score
        self.say(f"{name}, seed {seed}: holdout scored")

    def _fail(self, line: str) -> None:
        self.trouble.append(line)
        self.say(line)

    def _runs(self, champion: Champion, purpose: Purpose) -> list[Run]:
        """Return a champion's runs with a score; the baseline's are those of every calibration."""
        ledger, on_cuda = self.campaign.ledger, self.runner.device.kind == "cuda"
        attempts = [ledger.attempt(champion.attempt_id)]
        if champion.version == 1:
            attempts = [attempt for attempt in ledger.attempts() if attempt.kind == "baseline"]
        runs = [run for attempt in attempts for run in attempt.runs if run.purpose is purpose]
        return [r for r in runs if r.score is not None and r.device.startswith("cuda") == on_cuda]

    def _scores(self, champion: Champion, purpose: Purpose) -> dict[int, float]:
        runs = self._runs(champion, purpose)
        return {run.seed: run.score for run in runs if run.score is not None}
