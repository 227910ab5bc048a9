"""The proposer of a session with its settings, its notes and its papers."""

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
from ..data.dataset import Dataset, DatasetError
from ..ledger.spend import CostBudget
from ..proposers.draft import WithNotes
from ..proposers.llm.forecast import first_context, forecast
from ..proposers.memory import Notebook
from ..proposers.papers import ARXIV, Library
from ..proposers.registry import Settings, create, default, with_settings
from ..source.brief import declared_space
from .facts import SessionSettings

LITERATURE = "literature"
"""Folder of the user's own notes, beside the program."""

PAPERS = "papers.json"

MIRROR = "AUTORESEARCH_ARXIV"
"""Environment variable with another address of arXiv's API."""


@dataclass
class Researcher:
    """The proposer of one process, its notes and its papers.

    Attributes:
        root: Folder of the project.
        ledger: File of the campaign's ledger; notes are stored beside it.
        settings: What the session chooses.
        experiment: The declaration.
        say: Prints a line.
    """

    root: Path
    ledger: Path
    settings: SessionSettings
    experiment: Experiment
    say: Callable[[str], None] = lambda line: None

    @cached_property
    def main(self) -> Proposer:
        """The chosen proposer without a control arm."""
        name = self.settings.proposer or default(self.experiment)
        return create(name, experiment=self.experiment, root=self.root)

    @property
    def slow(self) -> bool:
        """Whether proposals come from a language model or an agent."""
        return self.main.slow

    def proposer(self) -> Proposer:
        """Return the proposer with settings, control arm, notes and papers."""
        chosen = self.settings
        proposer = with_settings(
            self.main,
            Settings(
                chosen.model,
                chosen.effort,
                chosen.client,
                chosen.control,
                CostBudget(self.ledger, chosen.max_cost),
                chosen.sandbox,
                self._hidden(),
                chosen.price,
                chosen.context,
                chosen.answer,
            ),
        )
        return WithNotes(proposer, self._notebook, self._library) if self.slow else proposer

    def _hidden(self) -> tuple[str, ...]:
        """Return the files with validation and holdout text, for agents as for candidates."""
        if self.experiment.data is None:
            return ()
        with contextlib.suppress(DatasetError):  # a command's own data, or named by the preflight
            dataset = Dataset.open(self.root / self.experiment.data)
            return tuple(map(str, dataset.hidden_paths()))
        return ()

    @cached_property
    def _notebook(self) -> Notebook:
        return Notebook(self.ledger.parent)

    @cached_property
    def _library(self) -> Library:
        return Library(
            self.ledger.with_name(PAPERS),
            self.settings.papers or "",
            self.root / LITERATURE,
            os.environ.get(MIRROR, ARXIV),
            say=self.say,
        )

    def prepare(self, first: int, attempts: int, past: int) -> list[str]:
        """Check the proposer before anything is spent; return its forecast and warnings.

        Args:
            first: Number of the session's first attempt.
            attempts: Number of attempts to forecast.
            past: Number of attempts in the campaign's history.

        Raises:
            ProposerUnavailable: The proposer cannot be reached.
            ValueError: The program's front matter cannot be read.
        """
        experiment = self.experiment
        with contextlib.suppress(OSError):
            declared_space((self.root / experiment.program).read_text("utf-8", "replace"))
        self.proposer()
        warning = self.main.check()
        lines = [warning] if warning else []
        if not self.slow:
            return lines
        self._library.papers(first, again=True)
        texts = {
            name: path.read_text(encoding="utf-8", errors="replace")
            for name in (experiment.program, *experiment.files, *experiment.context)
            if (path := self.root / name).is_file()
        }
        program = texts.pop(experiment.program, "")
        files = {name: texts.pop(name, "") for name in experiment.files}
        context = first_context(experiment, program, files, texts)
        context = WithNotes(self.main, self._notebook, self._library).with_notes(context)
        return [forecast(self.main, context, attempts, self.settings.control, past), *lines]

    def close(self) -> None:
        """Close the proposer if it was created; safe to call twice."""
        if "main" in self.__dict__:
            self.main.close()

    def note(self, meta: Mapping[str, Any], name: str) -> None:
        """Add the ideas and lessons of a proposal to the campaign's notes; ignore a full disk."""
        if self.slow:
            with contextlib.suppress(OSError):
                self._notebook.note(meta, name)
