"""What a proposer is told: the brief as it is now, every attempt so far, the files to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..core.proposal import Context, PastAttempt
from ..source.brief import FrontMatterError, knobs
from ..source.edits import apply
from .attempt import WorkingAttempt

if TYPE_CHECKING:
    from ..core.records import Attempt
    from ..core.run import Run
    from .runs import Runner


class Briefing:
    """Makes it of a campaign's records, for one process.

    Args:
        trials: Of the campaign.
        say: Shows a person a line.
    """

    def __init__(self, runner: Runner, say: Callable[[str], None]) -> None:
        self.runner, self.say = runner, say
        self.root, self.experiment, self.rules = runner.root, runner.experiment, runner.rules
        self.ledger, self.repository = runner.ledger, runner.repository
        self._brief: str | None = None
        self._complaint = ""

    def context(self, attempt: WorkingAttempt, hint: str = "") -> Context:
        """Everything the proposer may know; holdout scores are not in the rows it is made of."""
        history = self.history()
        assert attempt.parent is not None
        by_id = {attempt.attempt_id: attempt for attempt in history}
        champion = by_id[self.runner.champion().attempt_id]
        fixed = [name for name in self.experiment.context if (self.root / name).is_file()]
        last = attempt.parent.own_runs[-1] if attempt.parent.own_runs else None
        return Context(
            experiment=self.experiment,
            program=self.program(),
            attempt=attempt.record.number,
            seed=self.rules.seed,
            parent=by_id[attempt.parent.id],
            files=attempt.before,
            fixed_files=self.repository.read(self.rules.base_commit, fixed),
            history=history,
            champion=champion,
            sigma=self.runner.noise().sigma,
            figures=_figures(last) if last else {},
            log_tail=last.log_tail if last else "",
            hint=hint,
            curve=last.curve if last else (),
        )

    def program(self) -> str:
        """The brief as it is now: a person steers by editing it while a campaign runs.

        While it cannot be read, half edited, the last one holds that could.
        """
        path = self.root / self.experiment.program
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
            knobs(text)
        except (OSError, FrontMatterError) as error:
            if (before := self.ledger.meta("brief")) is None:
                raise
            if self._complaint != str(error):
                self.say(f"{error}; until it is mended, proposals follow the text before")
            self._complaint = str(error)
            return str(before)
        self._complaint = ""
        if text != self._brief:
            self.ledger.set_meta("brief", text)  # all workers fall back on the same
            self._brief = text
        return text

    def history(self) -> list[PastAttempt]:
        """Every attempt of the campaign as a proposer sees it, oldest first."""
        return [self._attempt(record) for record in self.ledger.attempts()]

    def _attempt(self, record: Attempt) -> PastAttempt:
        return PastAttempt(
            attempt_id=record.id,
            name=record.name,
            parent=record.parent,
            title=record.title,
            hypothesis=record.hypothesis,
            proposer=record.proposer,
            verdict=record.verdict or ("running" if record.state == "running" else record.state),
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
        if record.commit:
            return self.runner.read(record.commit)
        parent = self.ledger.attempt(record.parent) if record.parent else None
        commit = parent.commit if parent else self.rules.base_commit
        return apply(self.runner.read(commit), record.edits)


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
