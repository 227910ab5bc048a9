"""Context of a proposal: the brief, every attempt so far, the files to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from ..core.proposal import Context, PastAttempt
from ..judge.causes import Diagnosis
from ..ledger.git import CommitLost
from ..source.brief import FrontMatterError, declared_space
from ..source.edits import apply
from .attempt import WorkingAttempt
from .setting import bits_per_nat, describe, open_dataset

if TYPE_CHECKING:
    from ..core.records import Attempt
    from ..data.dataset import Dataset
    from .runs import Runner


class ContextBuilder:
    """Builds the contexts of proposals from a campaign's records."""

    def __init__(self, runner: Runner, say: Callable[[str], object]) -> None:
        self.runner, self.say = runner, say
        self.ledger, self.base_commit = runner.ledger, runner.facts.base_commit
        self._history: dict[int, PastAttempt] = {}
        self._brief: str | None = None
        self._problem = ""

    def context(self, attempt: WorkingAttempt, hint: str = "") -> Context:
        """Return everything that a proposer may know; holdout scores are not part of it."""
        runner, experiment, parent = self.runner, self.runner.experiment, attempt.parent
        assert parent is not None
        records = self.ledger.attempts()
        diagnosis = Diagnosis(records)
        proposed = [
            record
            for record in records
            if record.kind == "baseline" or record.state != "running" or record.title
        ]
        history = [self._past(record, diagnosis) for record in proposed]
        by_id = {past.attempt_id: past for past in history}
        champion, best = self.ledger.champion(), by_id[parent.id]
        if champion is not None:  # else the baseline is being measured
            best = replace(
                by_id[champion.attempt_id],
                score=champion.mean,
                measured=diagnosis.of_champion(self.ledger.attempt(champion.attempt_id)),
            )
        fixed = [name for name in experiment.context if (runner.root / name).is_file()]
        last = parent.own_runs[-1] if parent.own_runs else None
        return Context(
            experiment=experiment,
            program=self.program(),
            attempt=attempt.record.number,
            seed=runner.facts.seed,
            parent=by_id[parent.id],
            files=attempt.before,
            fixed_files=runner.repository.read(self.base_commit, fixed),
            history=history,
            champion=best,
            sigma=runner.noise().sigma if champion else None,
            cuda=runner.device.kind == "cuda",
            setting=self._setting,
            bits_per_nat=bits_per_nat(self._dataset),
            log_tail=last.log_tail if last else "",
            hint=hint,
        )

    @cached_property
    def _dataset(self) -> Dataset | None:
        return open_dataset(self.runner.root, self.runner.experiment)

    @cached_property
    def _setting(self) -> str:
        runner = self.runner
        return describe(
            runner.experiment, self._dataset, runner.facts.budget, runner.device,
            runner.settings.threads, runner.memory_bound(),
        )  # fmt: skip

    def program(self) -> str:
        """Return the brief as it is now, so that editing it steers a running campaign.

        While it cannot be read, return the last version that could.
        """
        path = self.runner.root / self.runner.experiment.program
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            declared_space(text)
        except (OSError, FrontMatterError) as error:
            if (before := self.ledger.meta("brief")) is None:
                raise
            if self._problem != str(error):
                self.say(f"{error}; proposals use the last valid version until it is fixed")
            self._problem = str(error)
            return str(before)
        self._problem = ""
        if text != self._brief:
            self.ledger.set_meta("brief", text)  # the same last version for all workers
            self._brief = text
        return text

    def _past(self, record: Attempt, diagnosis: Diagnosis) -> PastAttempt:
        """Return an attempt as a proposer sees it; made once for each finished attempt."""
        if (past := self._history.get(record.id)) is None:
            past = self._make_past(record, diagnosis)
            if record.state == "done":
                self._history[record.id] = past
        return past

    def _make_past(self, record: Attempt, diagnosis: Diagnosis) -> PastAttempt:
        return PastAttempt(
            attempt_id=record.id,
            name=record.name,
            parent=record.parent,
            title=record.title,
            hypothesis=record.hypothesis,
            proposer=record.proposer,
            verdict=record.verdict or ("baseline" if record.kind == "baseline" else record.state),
            reason=record.reason,
            score=record.score,
            gain=record.gain,
            gain_sigma=record.gain_sigma,
            lines_added=record.lines_added,
            lines_removed=record.lines_removed,
            meta=record.meta,
            read_files=partial(self._files_of, record),
            edits=record.edits,
            log_tail=record.runs[-1].log_tail if record.runs and record.score is None else "",
            measured=diagnosis.measured(record),
            cause=diagnosis.cause(record),
        )

    def _files_of(self, record: Attempt) -> Mapping[str, str]:
        parent = self.ledger.attempt(record.parent) if record.parent else None
        commit = parent.commit if parent else self.base_commit
        try:
            if record.commit:
                return self.runner.read(record.commit)
            return apply(self.runner.read(commit), record.edits)
        except CommitLost:
            return {}
