"""Who proposes in a session, and what that one is told beside the ledger."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from ..core.experiment import Experiment
from ..core.proposal import Proposer
from ..ledger.spend import CostBudget
from ..options import MAX_ATTEMPTS, Options
from ..proposers.registry import Settings, create, default, with_settings

LITERATURE = "literature"
"""Folder of a person's own notes, beside the program."""

PAPERS = "papers.json"

MIRROR = "AUTORESEARCH_ARXIV"
"""Variable that names another address of arXiv's API."""


@dataclass
class Researcher:
    """The proposer of one process, its notebook and its library.

    Attributes:
        root: Of the project.
        ledger: File of the campaign; notes lie beside it.
        options: What the user asked for.
        experiment: The declaration.
        say: Shows a person a line.
    """

    root: Path
    ledger: Path
    options: Options
    experiment: Experiment
    say: Callable[[str], None] = lambda line: None

    @cached_property
    def main(self) -> Proposer:
        """The proposer that was asked for, without a control arm."""
        name = self.options.proposer or default()
        return create(name, experiment=self.experiment, root=self.root)

    @property
    def slow(self) -> bool:
        """Whether proposals come from a model or an agent."""
        return self.main.slow

    def proposer(self) -> Proposer:
        """Return it with its settings, its control arm, and what it is told."""
        options = self.options
        cost_budget = CostBudget(self.ledger, options.max_cost)
        settings = Settings(
            options.model,
            options.effort,
            options.client,
            options.control,
            cost_budget,
            options.sandbox,
            options.price,
        )
        made = with_settings(self.main, settings)
        if not self.slow:
            return made
        from ..proposers.draft import WithNotes

        return WithNotes(made, self._notebook, self._library)

    @cached_property
    def _notebook(self) -> Any:
        from ..proposers.memory import Notebook

        return Notebook(self.ledger.parent)

    @cached_property
    def _library(self) -> Any:
        from ..proposers.papers import ARXIV, Library

        return Library(
            self.ledger.with_name(PAPERS),
            self.options.papers or "",
            self.root / LITERATURE,
            os.environ.get(MIRROR, ARXIV),
            say=self.say,
        )

    # ------------------------------------------------------------------ before and after

    def prepare(self, first: int, attempts: int, known: int) -> list[str]:
        """See before anything is spent that proposals can be had, and what they will cost.

        Args:
            first: Number of the session's first attempt.
            attempts: Of the session.
            known: Attempts that the campaign's history holds.

        Returns:
            Lines for a person.

        Raises:
            ProposerUnavailable: None can be had.
            ValueError: The program's front matter cannot be read.
        """
        from ..source.brief import knobs

        with contextlib.suppress(OSError):
            knobs((self.root / self.experiment.program).read_text("utf-8", "replace"))
        self.proposer()
        warning = self.main.check()
        if not self.slow:
            return [warning] if warning else []
        from ..proposers.draft import WithNotes
        from ..proposers.llm.forecast import first_context, forecast

        self._library.papers(first, again=True)
        experiment = self.experiment
        texts = {
            name: path.read_text(encoding="utf-8", errors="replace")
            for name in (experiment.program, *experiment.files, *experiment.context)
            if (path := self.root / name).is_file()
        }
        program = texts.pop(experiment.program, "")
        files = {name: texts.pop(name, "") for name in experiment.files}
        context = first_context(experiment, program, files, texts)
        count = 100 if attempts >= MAX_ATTEMPTS else attempts
        context = WithNotes(self.main, self._notebook, self._library).with_notes(context)
        line = forecast(self.main, context, count, self.options.control, known)
        return [line, *([warning] if warning else [])]

    def close(self) -> None:
        """Release the proposer, if there is one; safe to call twice."""
        if "main" in self.__dict__:
            self.main.close()

    def note(self, meta: Mapping[str, Any], name: str) -> None:
        """Add what a proposal says beside its edits to the campaign's notes."""
        if self.slow:
            with contextlib.suppress(OSError):  # notes are worth no attempt
                self._notebook.note(meta, name)
