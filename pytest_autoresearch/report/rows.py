"""The table of the HTML report: a row an attempt, its texts cut to a fixed length."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

from markupsafe import Markup, escape

from ..core.outcome import VERDICTS
from ..core.proposal import Edit
from ..core.records import Attempt, Champion
from ..core.run import Purpose, Run
from ..judge.causes import Diagnosis
from ..judge.families import expected_of, family_of
from ..judge.parents import stack
from ..source.edits import unified
from . import svg

TITLE, REASON, HYPOTHESIS, DIFF, LOG = 140, 600, 800, 2_500, 1_500
"""Most characters of a text on the page, so that its size is bounded; git and the junit log hold
the whole text."""


_WORDS = re.compile(r"[\w.]+|[^\w.]")


def short(attempt: Attempt) -> str:
    """Return an attempt's name, without the number of a baseline."""
    return "baseline" if attempt.kind == "baseline" else attempt.name


def word(attempt: Attempt) -> str:
    """Return an attempt's verdict, or its state before it has one, as a word."""
    verdict = attempt.verdict or attempt.state
    return VERDICTS[verdict].word if verdict in VERDICTS else verdict


def letter(attempt: Attempt) -> str:
    """Return the letter that the terminal shows for an attempt."""
    verdict = attempt.verdict or attempt.state
    return VERDICTS[verdict].letter if verdict in VERDICTS else "…" if verdict == "running" else "?"


def idea(attempt: Attempt) -> str:
    """Return the family that a proposal states and the gain that it expects, or ''."""
    expected = expected_of(attempt.meta)
    return ", ".join(
        part
        for part in (
            family_of(attempt.meta),
            "" if expected is None else f"expected gain {expected:+.4g}",
        )
        if part
    )


def outcome(run: Run) -> str:
    """Return a run's figures in a line."""
    if run.score is not None:
        result = f"{run.score:.6f}" if abs(run.score) < 1e6 else f"{run.score:.6g}"
    else:
        result = "" if run.status == "ok" else run.status or run.state
    figures = [result] if result else []
    if run.steps:
        figures += [f"{run.train_seconds:.1f} s", f"{run.steps:,} steps"]
    elif run.score is None:
        figures += [f"{name} {value:.6g}" for name, value in run.metrics.items()]
    return f"{run.purpose}, seed {run.seed}: {', '.join(figures)}"


@dataclass(frozen=True)
class Row:
    """One attempt as the table shows it.

    Attributes:
        attempt: Its record.
        word, letter: Its verdict for people.
        cause: Why it gained or lost, or ''.
        family: Family of its idea and the gain it expected, or ''.
        parent: Name of its parent, or ''.
        below: Names of the discards that a keep was built on; `diff` includes them.
        seconds: Of all its runs, or None.
        memory_mb: Peak, or None.
        parameters: Of the model, or 0.
        title, reason, hypothesis, diff, log: Bounded text; `cut` names what was shortened.
        curve: Path of its loss curve, or ''.
        champion_curve: Id of the champion's curve, or ''.
        runs: A line each, without holdout scores.
    """

    attempt: Attempt
    word: str
    letter: str
    cause: str
    family: str
    parent: str
    below: tuple[str, ...]
    seconds: float | None
    memory_mb: float | None
    parameters: int
    title: str
    reason: str
    hypothesis: str
    diff: Markup
    log: str
    cut: tuple[str, ...]
    curve: str
    champion_curve: str
    runs: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """The verdict, or the state before there is one, as in the ledger."""
        return self.attempt.verdict or self.attempt.state


class Table:
    """All rows, and the loss curves that they share."""

    def __init__(self, attempts: Sequence[Attempt], champions: Sequence[Champion]) -> None:
        self.attempts = attempts
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._diagnosis = Diagnosis(attempts)
        self._champion_attempts = {champion.attempt_id for champion in champions}

    def rows(self) -> Iterator[Row]:
        """Yield the row of every attempt."""
        return map(self._row, self.attempts)

    def _row(self, attempt: Attempt) -> Row:
        # a keep's diff has the discards that it was built on
        kept = attempt.verdict == "keep"
        whole = stack(attempt, self._by_id, self._champion_attempts) if kept else [attempt]
        changes = diff([edit for one in whole for edit in one.edits])
        last = attempt.own_runs[-1:] or attempt.runs[-1:]
        log = (last[0].log_tail or last[0].log_head).strip() if last else ""
        caps = (
            ("hypothesis", attempt.hypothesis, HYPOTHESIS),
            ("diff", changes, DIFF),
            ("log", log, LOG),
        )
        parent = self._by_id.get(attempt.parent or 0)
        curves = [run.curve for run in attempt.own_runs if run.curve]
        low, high = self._losses
        champion = (
            attempt.champion_before if attempt.champion_before in self._champion_curves else 0
        )
        return Row(
            attempt=attempt,
            word=word(attempt),
            letter=letter(attempt),
            cause=self._diagnosis.cause(attempt),
            family=idea(attempt),
            parent=short(parent) if parent else "",
            below=tuple(one.name for one in whole[:-1]),
            seconds=sum(run.total_seconds for run in attempt.runs) if attempt.runs else None,
            memory_mb=max((r.peak_memory_bytes for r in attempt.runs), default=0) / 2**20 or None,
            parameters=max((run.parameters for run in attempt.own_runs), default=0),
            title=(attempt.title or attempt.name)[:TITLE],
            reason=attempt.reason[:REASON],
            hypothesis=head(attempt.hypothesis, HYPOTHESIS),
            diff=coloured(head(changes, DIFF)) if changes else Markup(""),
            log=tail(log, LOG),
            cut=tuple(name for name, text, cap in caps if len(text) > cap),
            curve=svg.curve_path(curves[-1], low, high) if curves else "",
            champion_curve=f"c{champion}" if champion and curves else "",
            runs=tuple(outcome(run) for run in attempt.runs if run.purpose is not Purpose.HOLDOUT),
        )

    def choices(self) -> list[tuple[str, str]]:
        """Return every verdict that occurs, with its word."""
        return sorted(
            {(attempt.verdict or attempt.state, word(attempt)) for attempt in self.attempts}
        )

    # ------------------------------------------------------------------ loss curves

    @cached_property
    def _champion_curves(self) -> dict[int, Sequence[tuple[float, float]]]:
        """Attempt of each champion to the loss curve of its last run."""
        by_attempt: dict[int, Sequence[tuple[float, float]]] = {}
        for attempt_id in self._champion_attempts:
            attempt = self._by_id.get(attempt_id)
            curves = [run.curve for run in attempt.own_runs if run.curve] if attempt else []
            if curves:
                by_attempt[attempt_id] = curves[-1]
        return by_attempt

    @cached_property
    def _losses(self) -> tuple[float, float]:
        return svg.loss_range(
            run.curve for attempt in self.attempts for run in attempt.own_runs if run.curve
        )

    def champion_curves(self) -> list[tuple[str, str]]:
        """Return every champion's loss curve as (id, path)."""
        low, high = self._losses
        return [
            (f"c{i}", svg.curve_path(curve, low, high))
            for i, curve in self._champion_curves.items()
        ]

    def curve_axes(self) -> Markup:
        """Return the frame that all loss curves share."""
        return svg.curve_axes(*self._losses)


# ---------------------------------------------------------------------- texts


def diff(edits: Sequence[Edit]) -> str:
    """Return edits as a unified diff, one hunk an edit, without line numbers."""
    parts: list[str] = []
    for edit in edits:
        lines = unified({edit.file: edit.search}, {edit.file: edit.replace}).splitlines()
        body = [line for line in lines[2:] if not line.startswith("\\")]
        head = f"@@ {edit.file} @@"
        if head not in parts:
            parts.append(head)
        parts += [line for line in body if not line.startswith("@@")]
    return "\n".join(parts)


def coloured(text: str) -> Markup:
    """Mark up a diff: ``del`` and ``ins`` around removed and added lines.

    Where as many lines were added as removed, ``b`` marks the words that differ within a line.
    """
    runs = [(tag, list(lines)) for tag, lines in groupby(text.split("\n"), _tag)]
    marked: list[str] = []
    for i, (tag, lines) in enumerate(runs):
        step = {"del": 1, "ins": -1}.get(tag)
        other = runs[i + step] if step and 0 <= i + step < len(runs) else ("", [])
        if step and other[0] in ("del", "ins") and len(other[1]) == len(lines):
            inside = "".join(_differing(a, b) + "\n" for a, b in zip(lines, other[1], strict=True))
        else:
            inside = str(escape("".join(line + "\n" for line in lines)))
        marked.append(f"<{tag}>{inside}</{tag}>" if tag else inside)
    return Markup("".join(marked))


def _tag(line: str) -> str:
    return {"-": "del", "+": "ins"}.get(line[:1], "")


def _differing(line: str, other: str) -> str:
    """Return `line`, escaped, its words marked that differ from `other`."""
    words, facing = _WORDS.findall(line[1:]), _WORDS.findall(other[1:])
    start = _common(words, facing)
    end = _common(words[start:][::-1], facing[start:][::-1])
    parts = (words[:start], words[start : len(words) - end], words[len(words) - end :])
    before, inside, after = (escape("".join(part)) for part in parts)
    if start + end == 0 or not inside:
        return str(escape(line))
    return f"{line[0]}{before}<b>{inside}</b>{after}"


def _common(words: Sequence[str], others: Sequence[str]) -> int:
    """Count the words that both begin with."""
    pairs = zip(words, others, strict=False)
    return next((i for i, (a, b) in enumerate(pairs) if a != b), min(len(words), len(others)))


def head(text: str, cap: int) -> str:
    """Return the first `cap` characters of `text`, and a mark if there were more."""
    return text if len(text) <= cap else text[:cap] + "\n…"


def tail(text: str, cap: int) -> str:
    """Return the last `cap` characters of `text`, after a mark if there were more."""
    return text if len(text) <= cap else "…\n" + text[-cap:]
