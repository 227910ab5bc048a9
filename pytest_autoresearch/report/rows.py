"""The table of the HTML report: a row an attempt, its texts cut to what a page has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from ..core.outcome import LETTERS
from ..core.records import HOLDOUT, Attempt, Champion
from ..core.run import Run
from ..judge.parents import stack
from . import svg, texts

PAGE_BYTES, ROW_BYTES, RUN_BYTES, TEXT_BYTES = 940_000, 1_250, 115, 450
"""A page aims at so many bytes; a row and a trial take so many beside their texts; so many bytes
of text a row are shown however many rows there are."""

MAX_TITLE, MAX_REASON = 140, 600


def short(attempt: Attempt) -> str:
    """Return an attempt's name for people."""
    return "baseline" if attempt.kind == "baseline" else attempt.name


def word(attempt: Attempt) -> str:
    """Return what an attempt came to, or where it is."""
    verdict = attempt.verdict or attempt.state
    return LETTERS[verdict][0] if verdict in LETTERS else verdict


def letter(attempt: Attempt) -> str:
    """Return the letter that the terminal shows for it."""
    verdict = attempt.verdict or attempt.state
    return LETTERS[verdict][1] if verdict in LETTERS else "…" if verdict == "running" else "?"


def outcome(run: Run) -> str:
    """Return one training run's figures in a line."""
    if run.score is not None:
        result = f"{run.score:.6f}" if abs(run.score) < 1e6 else f"{run.score:.6g}"
    else:
        result = "" if run.status == "ok" else run.status or run.state
    figures = [result] if result else []
    if not run.steps and run.score is None:
        figures += [f"{name} {value:.6g}" for name, value in run.metrics.items()]
    if run.steps:
        figures.append(f"{run.train_seconds:.1f} s")
        figures.append(f"{run.steps:,} steps")
    return f"{run.purpose}, seed {run.seed}: {', '.join(figures)}"


def log_of(attempt: Attempt) -> str:
    """Return what its last training printed."""
    last = attempt.own_runs[-1:] or attempt.runs[-1:]
    return (last[0].log_tail or last[0].log_head).strip() if last else ""


@dataclass(frozen=True)
class Row:
    """One attempt as the table shows it.

    Attributes:
        attempt: Its record.
        word, letter: Its verdict for people.
        parent: Name of its parent, or ''.
        below: Names of the discards that a keep was built on and has in it; `diff` has them, too.
        seconds: Of all its trials, or None.
        memory_mb: Peak, or None.
        parameters: Of the model, or 0.
        title, reason, hypothesis, diff, log: Bounded text; `cut` names what was shortened.
        curve: Path of its loss curve, or ''.
        rival: Id of the champion's curve, or ''.
        trials: A line each; holdout scores are not among them.
    """

    attempt: Attempt
    word: str
    letter: str
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
        """What it came to, or where it is, as the ledger calls it."""
        return self.attempt.verdict or self.attempt.state


class Table:
    """All rows, and the loss curves that they share."""

    def __init__(self, attempts: Sequence[Attempt], champions: Sequence[Champion]) -> None:
        self.attempts = attempts
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._champion_attempts = {champion.attempt_id for champion in champions}
        self._runs = [run for attempt in attempts for run in attempt.runs]

    def rows(self) -> list[Row]:
        """Return every attempt, its texts cut to what the page has room for."""
        told = [
            (
                attempt.hypothesis,
                texts.diff([e for one in self._whole(attempt) for e in one.edits]),
                log_of(attempt),
            )
            for attempt in self.attempts
        ]
        sizes = [
            (texts.weight(why), texts.weight(code, texts.coloured), texts.weight(log))
            for why, code, log in told
        ]
        n = len(self.attempts)
        taken = ROW_BYTES * n + RUN_BYTES * len(self._runs)
        taken += sum(
            texts.weight(s.reason[:MAX_REASON]) + 2 * texts.weight(s.title) for s in self.attempts
        )
        room = max(PAGE_BYTES - taken, TEXT_BYTES * n)
        cap = texts.fair_share([size for three in sizes for size in three], room)
        return [self._row(*row, cap) for row in zip(self.attempts, told, sizes, strict=True)]

    def _row(
        self, attempt: Attempt, told: tuple[str, str, str], sizes: tuple[int, int, int], cap: int
    ) -> Row:
        hypothesis, edits, log = told
        parent = self._by_id.get(attempt.parent or 0)
        own = [run for run in attempt.own_runs if run.curve]
        low, high = self._losses
        champion_curve = (
            attempt.champion_before if attempt.champion_before in self._rivals else None
        )
        return Row(
            attempt=attempt,
            word=word(attempt),
            letter=letter(attempt),
            parent=short(parent) if parent else "",
            below=tuple(one.name for one in self._whole(attempt)[:-1]),
            seconds=sum(t.total_seconds for t in attempt.runs) if attempt.runs else None,
            memory_mb=max((t.peak_memory_bytes for t in attempt.runs), default=0) / 2**20 or None,
            parameters=max((t.parameters for t in attempt.own_runs), default=0),
            title=(attempt.title or attempt.name)[:MAX_TITLE],
            reason=attempt.reason[:MAX_REASON],
            hypothesis=texts.head(hypothesis, cap),
            diff=texts.coloured(texts.head(edits, cap, texts.coloured)) if edits else Markup(""),
            log=texts.tail(log, cap),
            cut=tuple(
                name
                for name, size in zip(("hypothesis", "diff", "log"), sizes, strict=True)
                if size > cap
            ),
            curve=svg.curve_path(own[-1].curve, low, high) if own else "",
            champion_curve=f"c{champion_curve}" if champion_curve and own else "",
            runs=tuple(outcome(run) for run in attempt.runs if run.purpose != HOLDOUT),
        )

    def _whole(self, attempt: Attempt) -> list[Attempt]:
        """Return what a keep consists of; of what was not kept, its own part is shown."""
        if attempt.verdict != "keep":
            return [attempt]
        return stack(attempt, self._by_id, self._champion_attempts)

    def choices(self) -> list[tuple[str, str]]:
        """Return every verdict that occurs, with its word."""
        found = sorted({attempt.verdict or attempt.state for attempt in self.attempts})
        return [(name, LETTERS[name][0] if name in LETTERS else name) for name in found]

    # ------------------------------------------------------------------ loss curves

    @cached_property
    def _rivals(self) -> dict[int, Sequence[tuple[float, float]]]:
        """Attempt of each champion to the loss curve of its own training."""
        found: dict[int, Sequence[tuple[float, float]]] = {}
        for attempt_id in self._champion_attempts:
            attempt = self._by_id.get(attempt_id)
            curves = [run.curve for run in attempt.own_runs if run.curve] if attempt else []
            if curves:
                found[attempt_id] = curves[-1]
        return found

    @cached_property
    def _losses(self) -> tuple[float, float]:
        return svg.loss_range(
            t.curve for attempt in self.attempts for t in attempt.own_runs if t.curve
        )

    def rival_curves(self) -> list[tuple[str, str]]:
        """Return every champion's loss curve once, as (id, path)."""
        low, high = self._losses
        return [(f"c{i}", svg.curve_path(curve, low, high)) for i, curve in self._rivals.items()]

    def curve_axes(self) -> Markup:
        """Return the frame that all loss curves share."""
        return svg.curve_axes(*self._losses)
