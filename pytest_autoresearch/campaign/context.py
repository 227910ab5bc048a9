"""Context of a proposal: the brief, every attempt so far, the files to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..core.proposal import Context, PastAttempt
from ..ledger.git import CommitLost
from ..source.brief import FrontMatterError, declared_space
from ..source.edits import apply
from .attempt import WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Attempt
    from ..core.run import Run
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
        history = [self._past(record) for record in records]
        by_id = {past.attempt_id: past for past in history}
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
            champion=by_id[runner.champion().attempt_id],
            sigma=runner.noise().sigma,
            figures=_figures(last) if last else {},
            log_tail=last.log_tail if last else "",
            hint=hint,
            curve=last.curve if last else (),
        )

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

    def _past(self, record: Attempt) -> PastAttempt:
        """Return an attempt as a proposer sees it; made once for each finished attempt."""
        if (past := self._history.get(record.id)) is None:
            past = self._make_past(record)
            if record.state == "done":
                self._history[record.id] = past
        return past

    def _make_past(self, record: Attempt) -> PastAttempt:
        return PastAttempt(
            attempt_id=record.id,
            name=record.name,
            parent=record.parent,
            title=record.title,
            hypothesis=record.hypothesis,
            proposer=record.proposer,
            verdict=record.verdict or record.state,
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


def _figures(run: Run) -> dict[str, float]:
    figures = {
        "train_seconds": run.train_seconds,
        "total_seconds": run.total_seconds,
        "steps": float(run.steps),
        "parameters": float(run.parameters),
        "peak_memory_mb": run.peak_memory_bytes / 2**20,
        "work": run.work,
    }
    if run.train_seconds:
        figures["work_per_second"] = run.work / run.train_seconds
    return figures
