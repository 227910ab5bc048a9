"""Record verdicts in the ledger and project them to git."""

from __future__ import annotations

from collections.abc import Callable
from statistics import fmean
from typing import TYPE_CHECKING

from ..core.outcome import Trial
from ..core.records import Outcome
from ..judge.parents import built_on, stack
from ..ledger import copy
from ..ledger.git import RepositoryError, attempt_ref
from ..source.edits import changed_lines
from .attempt import WorkingAttempt
from .cleanup import discard_files
from .runs import Runner

if TYPE_CHECKING:
    from ..core.records import Attempt

SUBJECT = 60
"""Most characters of a keep's title in the subject of its commit, before its gain."""


def _subject(attempt: WorkingAttempt, verdict: str) -> str:
    """Return the subject of an attempt's commit; a keep's ends in its gain."""
    assert attempt.proposal is not None
    title = attempt.proposal.title or attempt.name
    if verdict != "keep" or attempt.decision is None:
        return title
    return f"{title[:SUBJECT]} ({attempt.decision.gain:+.6f})"


class Recorder:
    """Writes the verdicts of a campaign."""

    def __init__(self, runner: Runner, say: Callable[[str], object]) -> None:
        self._say = say
        self._projected: dict[str, str] = {}
        self._problems: list[str] = []
        self.runner, self.experiment, self.facts = runner, runner.experiment, runner.facts
        self.ledger, self.repository = runner.ledger, runner.repository
        self.tag = self.ledger.path.parent.name

    def record_verdict(
        self, attempt: WorkingAttempt, trial: Trial, verdict: str, reason: str
    ) -> Attempt:
        """Write the verdict: commit object, one transaction, then refs as its projection.

        Raises:
            ledger.ChampionMoved: Another mutation was kept since this keep's bar was computed.
        """
        if attempt.record.state == "done":
            return attempt.record
        # Counted against the champion, as the gain is, whatever the attempt was built on.
        before = self.runner.read(attempt.champion.commit) if attempt.champion else attempt.before
        added, removed = changed_lines(before, attempt.files) if attempt.files else (0, 0)
        decision, score = attempt.decision, trial.value
        outcome: Outcome = {
            "verdict": verdict,
            "reason": reason,
            "score": fmean(attempt.scores.values())
            if verdict == "guard" and attempt.scores
            else score,
            "n": len(attempt.scores) or (1 if score is not None else 0),
            "bar": decision.bar if decision else None,
            "gain": decision.gain if decision else None,
            "gain_sigma": decision.gain_sigma if decision else None,
            "fingerprint": attempt.fingerprint,
            "lines_added": added,
            "lines_removed": removed,
            "champion_before": attempt.champion.attempt_id if attempt.champion else None,
        }
        if attempt.parent is not None:
            outcome["parent"] = attempt.parent.id
        commit = self._commit(attempt, trial, verdict, reason, outcome)
        if verdict == "keep":
            assert attempt.champion is not None
            self.ledger.promote(
                attempt.champion.version, attempt.record.id, commit, attempt.scores, outcome=outcome
            )
        else:
            self.ledger.finish_attempt(attempt.record.id, **outcome)
        self.project(everything=False)
        if verdict == "keep":
            self.save_ledger()
        record = self.ledger.attempt(attempt.record.id)
        if verdict not in ("keep", "baseline"):
            discard_files(self.runner.executor.root, record.id)
        return record

    def _commit(
        self, attempt: WorkingAttempt, trial: Trial, verdict: str, reason: str, outcome: Outcome
    ) -> str:
        """Commit an attempt's files; add the commit to the outcome, and what makes it again."""
        if not attempt.files or attempt.proposal is None:
            outcome["commit"] = self.facts.base_commit if attempt.record.kind == "baseline" else ""
            return outcome["commit"]
        metric = self.experiment.metric
        lines, decision = [], attempt.decision
        if trial.value is not None:
            result = f"{metric.name} {trial.value:.6f} over {len(attempt.scores)} seed(s)"
            if decision is not None:
                result += f", gain {decision.gain:+.6f} ({decision.gain_sigma:+.1f} sigma)"
            lines.append(result)
        if decision is not None:
            lines.append(decision.explanation)
        if reason and verdict != "keep":
            lines.append(reason)
        if attempt.proposal.hypothesis:
            lines += ["", attempt.proposal.hypothesis]
        if below := self._below(attempt):
            lines += ["", built_on(below)]
        parent = (
            attempt.champion.commit
            if verdict == "keep" and attempt.champion
            else attempt.parent_commit
        )
        text = self.repository.describe(
            subject=_subject(attempt, verdict),
            body="\n".join(lines),
            trailers={
                "Attempt": attempt.name,
                "Verdict": verdict,
                "Metric": f"{metric.name} {metric.direction}",
                "Score": "" if trial.value is None else repr(trial.value),
                "Seeds": " ".join(f"{seed}={score!r}" for seed, score in attempt.scores.items()),
                "Parent": attempt.parent_commit,
                "Proposer": attempt.proposal.proposer,
                "Data": self._data_hash(),
            },
        )
        ref = attempt_ref(self.tag, attempt.name)
        outcome["commit_object"] = f"{parent}\n{text}"
        outcome["commit"] = self.runner.commits.create(parent, attempt.files, text, ref)
        return outcome["commit"]

    def _below(self, attempt: WorkingAttempt) -> list[Attempt]:
        """Return the discards that a mutation was built on and has in it."""
        made = {champion.attempt_id for champion in self.ledger.champions()}
        if attempt.parent is None or attempt.parent.id in made:
            return []
        by_id = {record.id: record for record in self.ledger.attempts()}
        return stack(attempt.parent, by_id, made)

    def _data_hash(self) -> str:
        return str(self.ledger.meta("data_sha256") or "")

    def project(self, everything: bool = True) -> None:
        """Update the branch and the refs from the ledger; what fails is a warning.

        Args:
            everything: Also check the refs that this process has set before.
        """
        champions = [champion.commit for champion in self.ledger.champions()]
        if not champions:
            return
        if everything:
            self._projected = {}
        commits = self.ledger.commits()
        new = {n: commit for n, commit in commits.items() if self._projected.get(n) != commit}
        problems = self.repository.project(self.tag, champions, new)
        if not problems:
            self._projected = commits
        elif problems != self._problems:
            self._say(f"warning: git does not follow the ledger, which has all: {problems[0]}")
        self._problems = problems

    def save_ledger(self) -> None:
        """Copy the ledger to git; a failure is one warning, and the next copy has everything."""
        try:
            copy.save(self.repository, self.ledger)
        except (RepositoryError, OSError) as error:
            self._say(f"warning: the ledger is not copied to git: {error}")
