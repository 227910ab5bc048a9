"""What a proposer is told: the brief as it is now, every attempt so far, the files to change."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING

from ..core.proposal import Attempt, Context
from ..source.brief import FrontMatterError, knobs
from ..source.edits import apply
from .attempt import Slot

if TYPE_CHECKING:
    from ..core.records import SlotRecord, TrialRecord
    from .runs import Trials


class Briefing:
    """Makes it of a campaign's records, for one process.

    Args:
        trials: Of the campaign.
        say: Shows a person a line.
    """

    def __init__(self, trials: Trials, say: Callable[[str], None]) -> None:
        self.trials, self.say = trials, say
        self.root, self.experiment, self.rules = trials.root, trials.experiment, trials.rules
        self.ledger, self.repository = trials.ledger, trials.repository
        self._brief: str | None = None
        self._complaint = ""

    def context(self, slot: Slot, hint: str = "") -> Context:
        """Everything the proposer may know; holdout scores are not in the rows it is made of."""
        history = self.history()
        assert slot.parent is not None
        by_id = {attempt.slot_id: attempt for attempt in history}
        champion = by_id[self.trials.champion().slot_id]
        fixed = [name for name in self.experiment.context if (self.root / name).is_file()]
        last = slot.parent.own_trials[-1] if slot.parent.own_trials else None
        return Context(
            experiment=self.experiment,
            program=self.program(),
            slot=slot.record.number,
            seed=self.rules.seed,
            parent=by_id[slot.parent.id],
            files=slot.before,
            fixed_files=self.repository.read(self.rules.base_commit, fixed),
            history=history,
            champion=champion,
            sigma=self.trials.noise().sigma,
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

    def history(self) -> list[Attempt]:
        """Every slot of the campaign as a proposer sees it, oldest first."""
        return [self._attempt(record) for record in self.ledger.slots()]

    def _attempt(self, record: SlotRecord) -> Attempt:
        return Attempt(
            slot_id=record.id,
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
            log_tail=record.trials[-1].log_tail if record.trials and record.score is None else "",
        )

    def _files_of(self, record: SlotRecord) -> Mapping[str, str]:
        if record.commit:
            return self.trials.read(record.commit)
        parent = self.ledger.slot(record.parent) if record.parent else None
        commit = parent.commit if parent else self.rules.base_commit
        return apply(self.trials.read(commit), record.edits)


def _figures(trial: TrialRecord) -> dict[str, float]:
    figures = {
        "train_seconds": trial.train_seconds,
        "total_seconds": trial.total_seconds,
        "steps": float(trial.steps),
        "parameters": float(trial.parameters),
        "peak_memory_mb": trial.peak_memory_bytes / 2**20,
        "work": trial.work,
    }
    if trial.train_seconds:
        figures["work_per_second"] = trial.work / trial.train_seconds
    return figures
