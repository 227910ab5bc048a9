"""The table of the HTML report: a row a slot, its texts cut to what a page has room for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from markupsafe import Markup

from ..core.outcome import LETTERS
from ..core.records import HOLDOUT, Champion, SlotRecord, TrialRecord
from ..judge.parents import stack
from . import svg, texts

PAGE_BYTES, ROW_BYTES, TRIAL_BYTES, TEXT_BYTES = 940_000, 1_250, 115, 450
"""A page aims at so many bytes; a row and a trial take so many beside their texts; so many bytes
of text a row are shown however many rows there are."""

MAX_TITLE, MAX_REASON = 140, 600

STOPPED = "stopped early"


def short(slot: SlotRecord) -> str:
    """Return a slot's name for people."""
    return "baseline" if slot.kind == "baseline" else slot.name


def stopped_early(slot: SlotRecord) -> bool:
    """Whether its training was cut short because it could not catch up any more."""
    return slot.verdict == "discard" and slot.score is None


def word(slot: SlotRecord) -> str:
    """Return what a slot came to, or where it is."""
    if stopped_early(slot):
        return STOPPED
    verdict = slot.verdict or slot.state
    return LETTERS[verdict][0] if verdict in LETTERS else verdict


def letter(slot: SlotRecord) -> str:
    """Return the letter that the terminal shows for it."""
    verdict = slot.verdict or slot.state
    return LETTERS[verdict][1] if verdict in LETTERS else "…" if verdict == "running" else "?"


def outcome(trial: TrialRecord) -> str:
    """Return one training run's figures in a line."""
    if trial.score is not None:
        result = f"{trial.score:.6f}" if abs(trial.score) < 1e6 else f"{trial.score:.6g}"
    else:
        result = {"hopeless": STOPPED, "ok": ""}.get(trial.status, trial.status or trial.state)
    figures = [result] if result else []
    if not trial.steps and trial.score is None:
        figures += [f"{name} {value:.6g}" for name, value in trial.metrics.items()]
    if trial.steps:
        figures.append(f"{trial.train_seconds:.1f} s")
        figures.append(f"{trial.steps:,} steps")
    return f"{trial.purpose}, seed {trial.seed}: {', '.join(figures)}"


def log_of(slot: SlotRecord) -> str:
    """Return what its last training printed."""
    last = slot.own_trials[-1:] or slot.trials[-1:]
    return (last[0].log_tail or last[0].log_head).strip() if last else ""


@dataclass(frozen=True)
class Row:
    """One slot as the table shows it.

    Attributes:
        slot: Its record.
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

    slot: SlotRecord
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
    rival: str
    trials: tuple[str, ...]

    @property
    def verdict(self) -> str:
        """What it came to, or where it is, as the ledger calls it."""
        return self.slot.verdict or self.slot.state


class Table:
    """All rows, and the loss curves that they share."""

    def __init__(self, slots: Sequence[SlotRecord], champions: Sequence[Champion]) -> None:
        self.slots = slots
        self._by_id = {slot.id: slot for slot in slots}
        self._champion_slots = {champion.slot_id for champion in champions}
        self._trials = [trial for slot in slots for trial in slot.trials]

    def rows(self) -> list[Row]:
        """Return every slot, its texts cut to what the page has room for."""
        told = [
            (
                slot.hypothesis,
                texts.diff([e for one in self._whole(slot) for e in one.edits]),
                log_of(slot),
            )
            for slot in self.slots
        ]
        sizes = [
            (texts.weight(why), texts.weight(code, texts.coloured), texts.weight(log))
            for why, code, log in told
        ]
        n = len(self.slots)
        taken = ROW_BYTES * n + TRIAL_BYTES * len(self._trials)
        taken += sum(
            texts.weight(s.reason[:MAX_REASON]) + 2 * texts.weight(s.title) for s in self.slots
        )
        room = max(PAGE_BYTES - taken, TEXT_BYTES * n)
        cap = texts.fair_share([size for three in sizes for size in three], room)
        return [self._row(*row, cap) for row in zip(self.slots, told, sizes, strict=True)]

    def _row(
        self, slot: SlotRecord, told: tuple[str, str, str], sizes: tuple[int, int, int], cap: int
    ) -> Row:
        hypothesis, edits, log = told
        parent = self._by_id.get(slot.parent or 0)
        own = [trial for trial in slot.own_trials if trial.curve]
        low, high = self._losses
        rival = slot.champion_before if slot.champion_before in self._rivals else None
        return Row(
            slot=slot,
            word=word(slot),
            letter=letter(slot),
            parent=short(parent) if parent else "",
            below=tuple(one.name for one in self._whole(slot)[:-1]),
            seconds=sum(t.total_seconds for t in slot.trials) if slot.trials else None,
            memory_mb=max((t.peak_memory_bytes for t in slot.trials), default=0) / 2**20 or None,
            parameters=max((t.parameters for t in slot.own_trials), default=0),
            title=(slot.title or slot.name)[:MAX_TITLE],
            reason=slot.reason[:MAX_REASON],
            hypothesis=texts.head(hypothesis, cap),
            diff=texts.coloured(texts.head(edits, cap, texts.coloured)) if edits else Markup(""),
            log=texts.tail(log, cap),
            cut=tuple(
                name
                for name, size in zip(("hypothesis", "diff", "log"), sizes, strict=True)
                if size > cap
            ),
            curve=svg.curve_path(own[-1].curve, low, high) if own else "",
            rival=f"c{rival}" if rival and own else "",
            trials=tuple(outcome(trial) for trial in slot.trials if trial.purpose != HOLDOUT),
        )

    def _whole(self, slot: SlotRecord) -> list[SlotRecord]:
        """Return what a keep consists of; of what was not kept, its own part is shown."""
        if slot.verdict != "keep":
            return [slot]
        return stack(slot, self._by_id, self._champion_slots)

    def choices(self) -> list[tuple[str, str]]:
        """Return every verdict that occurs, with its word."""
        found = sorted({slot.verdict or slot.state for slot in self.slots})
        return [(name, LETTERS[name][0] if name in LETTERS else name) for name in found]

    # ------------------------------------------------------------------ loss curves

    @cached_property
    def _rivals(self) -> dict[int, Sequence[tuple[float, float]]]:
        """Slot of each champion to the loss curve of its own training."""
        found: dict[int, Sequence[tuple[float, float]]] = {}
        for slot_id in self._champion_slots:
            slot = self._by_id.get(slot_id)
            curves = [trial.curve for trial in slot.own_trials if trial.curve] if slot else []
            if curves:
                found[slot_id] = curves[-1]
        return found

    @cached_property
    def _losses(self) -> tuple[float, float]:
        return svg.loss_range(t.curve for slot in self.slots for t in slot.own_trials if t.curve)

    def rival_curves(self) -> list[tuple[str, str]]:
        """Return every champion's loss curve once, as (id, path)."""
        low, high = self._losses
        return [(f"c{i}", svg.curve_path(curve, low, high)) for i, curve in self._rivals.items()]

    def curve_axes(self) -> Markup:
        """Return the frame that all loss curves share."""
        return svg.curve_axes(*self._losses)
