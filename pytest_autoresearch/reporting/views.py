"""What the HTML report tells, computed from the ledger's records alone; the template only shows."""

from __future__ import annotations

import json
import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from markupsafe import Markup

from ..experiment import Metric
from ..outcome import LETTERS
from ..records import HOLDOUT, Champion, SlotRecord, TrialRecord
from . import svg, texts

PAGE_BYTES, ROW_BYTES, TRIAL_BYTES, TEXT_BYTES = 950_000, 1_200, 110, 450
"""A page aims at so many bytes; a row and a trial take so many beside their texts; so many bytes
of text a row are shown however many rows there are."""

MAX_TITLE, MAX_REASON = 140, 400
_REFUSED = ("invalid", "duplicate", "guard")


def noise(slots: Sequence[SlotRecord], champions: Sequence[Champion], metric: Metric) -> float:
    """Return sigma of one paired comparison, pooled over the campaign as its judge pools it."""
    from ..judge import CUDA_PRIOR, Prior, estimate_noise, prior_from

    scores = {champion.slot_id: champion.scores for champion in champions}
    groups = []
    for slot in slots:
        reference = scores.get(slot.champion_before or 0, {})
        groups.append(
            {
                trial.seed: trial.score - reference[trial.seed]
                for trial in slot.own_trials
                if trial.score is not None and trial.seed in reference
            }
        )
    trials = [trial for slot in slots for trial in slot.trials]
    if champions and (
        metric.name != "val_bpb" or any(trial.score_kind == "self-reported" for trial in trials)
    ):
        prior = prior_from(champions[0].scores.values())
    else:
        on_cuda = any(trial.device.startswith("cuda") for trial in trials[:1])
        prior = CUDA_PRIOR if on_cuda else Prior()
    return estimate_noise(groups, prior).sigma


@dataclass(frozen=True)
class Row:
    """One slot as the table shows it.

    Attributes:
        slot: Its record.
        word, letter: Its verdict for people.
        parent: Name of its parent, or ''.
        seconds: Of all its trials, or None.
        memory_mb: Peak.
        title, reason, hypothesis, diff, log: Bounded text; `cut` names what was shortened.
        curve: Path of its loss curve, or ''.
        rival: Id of the champion's curve, or ''.
        trials: To be listed; holdout scores are not among them.
    """

    slot: SlotRecord
    word: str
    letter: str
    parent: str
    seconds: float | None
    memory_mb: float | None
    title: str
    reason: str
    hypothesis: str
    diff: Markup
    log: str
    cut: tuple[str, ...]
    curve: str
    rival: str
    trials: tuple[TrialRecord, ...]

    @property
    def verdict(self) -> str:
        """What it came to, or where it is."""
        return self.slot.verdict or self.slot.state


class Report:
    """Everything the template asks for, computed from records alone."""

    def __init__(
        self,
        slots: Sequence[SlotRecord],
        champions: Sequence[Champion],
        facts: Mapping[str, Any],
        live: bool,
    ) -> None:
        self.slots, self.champions, self.facts, self.live = slots, champions, facts, live
        self.campaign: Mapping[str, Any] = facts.get("campaign") or {}
        self.metric = Metric(**self.campaign.get("metric", {}))
        self.tag = facts.get("tag", "")
        self.at = facts.get("at", 0.0)
        self.status = facts.get("status", ())
        self.sigma = noise(slots, champions, self.metric)
        self.tried = [slot for slot in slots if slot.kind != "baseline"]
        self.first = champions[0] if champions else None
        self.last = champions[-1] if champions else None
        self._by_id = {slot.id: slot for slot in slots}
        self._place = {slot.id: i for i, slot in enumerate(slots)}
        self._champion_of = {champion.slot_id: champion for champion in champions}
        self._trials = [trial for slot in slots for trial in slot.trials]

    # ------------------------------------------------------------------ what was gained

    @property
    def champion_slot(self) -> SlotRecord | None:
        """The slot that made the last champion, if it is not the baseline."""
        known = self.last is not None and len(self.champions) > 1
        return self._by_id.get(self.last.slot_id) if known and self.last else None

    @property
    def gained(self) -> float:
        """Gain of the last champion over the first by the pairs that its keeps were judged by."""
        return self._gained(len(self.champions))

    def _gained(self, champions: int) -> float:
        kept = (self._by_id[champion.slot_id].gain for champion in self.champions[1:champions])
        return math.fsum(gain or 0.0 for gain in kept)

    @property
    def closing(self) -> Mapping[str, Any] | None:
        """What is confirmed of the present champion, or None."""
        closing: Mapping[str, Any] | None = self.facts.get("closing")
        present = closing and self.last and closing["champion"] == self.last.version
        return closing if present else None

    @property
    def holdout(self) -> Mapping[str, Any] | None:
        """The gain on the holdout, told only when no further trial can profit from it."""
        found = None if self.live or self.closing is None else self.closing["holdout"]
        return found if found is None else dict(found)

    @property
    def outdated(self) -> bool:
        """Whether only an earlier champion was confirmed."""
        return bool(self.facts.get("closing")) and self.closing is None

    @property
    def fallen(self) -> list[Mapping[str, Any]]:
        """Keeps that were examined on fresh seeds and did not survive."""
        keeps = self.closing["keeps"] if self.closing else ()
        return [keep for keep in keeps if not keep["held"]]

    def show(self, champion: Champion) -> str:
        """Return a champion's mean, standard error and replicates."""
        from ..judge import show

        return show(champion.scores.values())

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many slots came to what, most first."""
        counts: dict[str, int] = {}
        for slot in self.tried:
            verdict = slot.verdict or slot.state
            word = LETTERS[verdict][0] if verdict in LETTERS else verdict
            counts[word] = counts.get(word, 0) + 1
        return sorted(counts.items(), key=lambda item: -item[1])

    def intervals(self) -> Markup | None:
        """Return the picture of the gain as kept, as confirmed and on the holdout."""
        if self.closing is None:
            return None
        kept = self.closing["kept"]
        rows = [svg.Interval("when kept", kept, kept, kept)]
        for name, found in (("confirmed", self.closing["confirmed"]), ("holdout", self.holdout)):
            if found:
                rows.append(svg.Interval(name, found["gain"], found["low"], found["high"]))
        said = "; ".join(f"{r.name} {r.gain:+.6f} [{r.low:+.6f}, {r.high:+.6f}]" for r in rows)
        return svg.intervals(rows, unit=self.metric.unit or self.metric.name, description=said)

    # ------------------------------------------------------------------ pictures

    def _level(self, slot: SlotRecord) -> float | None:
        """Where a slot stands beside the champion's mean, the luck of its seeds taken out."""
        if slot.id in self._champion_of and slot.kind != "baseline":
            return self._champion_of[slot.id].mean
        before = self._champion_of.get(slot.champion_before or 0)
        if slot.score is None or slot.gain is None or before is None:
            return slot.score
        return before.mean - (slot.gain if self.metric.direction == "min" else -slot.gain)

    def _mark(self, slot: SlotRecord) -> svg.Mark:
        verdict = slot.verdict or slot.state
        score = "" if slot.score is None else f" {slot.score:.6f}"
        sigma = "" if slot.gain_sigma is None else f" ({slot.gain_sigma:+.1f}σ)"
        shape: svg.Shape = "dot"
        if verdict in ("keep", "baseline"):
            shape = "keep" if verdict == "keep" else "baseline"
        elif slot.score is None:
            shape = "square" if verdict in _REFUSED else "cross"
        tip = f"{slot.name} {verdict}{score}{sigma} {slot.title[:80]}".strip()
        return svg.Mark(slot.id, self._place[slot.id], self._level(slot), shape, slot.title, tip)

    @property
    def _marks(self) -> list[svg.Mark]:
        return [self._mark(slot) for slot in self.slots if slot.verdict is not None]

    @property
    def _better(self) -> str:
        return "lower" if self.metric.direction == "min" else "higher"

    def progress(self) -> Markup:
        """Return the progress picture."""
        starts: list[float] = [self._place.get(c.slot_id, 0) for c in self.champions]
        ends = [*starts[1:], max(1.0, len(self.slots) - 1)]
        reigns = [
            svg.Reign(start, end, champion.mean)
            for start, end, champion in zip(starts, ends, self.champions, strict=False)
        ]
        said = f"{len(self.tried)} trials, {len(self.champions[1:])} kept"
        if self.first and self.last:
            said += f"; {self.metric.name} from {self.first.mean:.6f} to {self.last.mean:.6f}"
        return svg.progress(
            self._marks,
            reigns,
            self.sigma,
            places=len(self.slots),
            ticks=self._ticks,
            metric=self.metric.name,
            direction=self.metric.direction,
            description=said + ". The table below holds the same.",
        )

    @property
    def _ticks(self) -> list[tuple[int, str]]:
        """About ten trials by their number, at a round step."""
        steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6)
        step = next(step for step in steps if len(self.tried) <= 12 * step)
        found = [(self._place[s.id], s.number) for s in self.tried if s.number % step == 0]
        return [(place, f"{number}") for place, number in found]

    def spending(self) -> list[Markup]:
        """Return the champion's gain over device hours and, if anything was billed, dollars."""
        if self.first is None:
            return []
        hours = [(t.finished or t.started, t.total_seconds / 3600) for t in self._trials]
        dollars = [
            (slot.finished or slot.started, slot.usage.cost_usd)
            for slot in self.slots
            if slot.usage.cost_usd
        ]
        pictures = [self._spent("hours", "device hours", hours)]
        if dollars:
            pictures.append(self._spent("dollars", "dollars of proposals", dollars))
        return pictures

    def _spent(self, name: str, what: str, costs: Sequence[tuple[float, float]]) -> Markup:
        assert self.first is not None
        points = []
        for number, champion in enumerate(self.champions, 1):
            spent = sum(cost for at, cost in costs if at <= champion.at)
            points.append((spent, self._gained(number)))
        total = sum(cost for _, cost in costs)
        points.append((total, points[-1][1]))
        said = f"{total:.2f} {what} spent in all, for a gain of {points[-1][1]:+.6f}."
        return svg.steps(
            name, points, x_name=what, y_name=f"gain, {self.metric.name}", description=said
        )

    def tree(self) -> Markup | None:
        """Return the tree of parents, a line for each slot that has children."""
        children: dict[int, list[svg.Mark]] = {}
        for slot in self.tried:
            if slot.parent in self._by_id and slot.verdict is not None:
                children.setdefault(slot.parent or 0, []).append(self._mark(slot))
        for slot_id in self._champion_of:
            children.setdefault(slot_id, [])
        rows = [
            (self._named(self._by_id[parent], found), self._place[parent], found)
            for parent, found in sorted(children.items(), key=lambda i: self._place.get(i[0], 0))
            if parent in self._by_id
        ]
        said = "; ".join(label for label, _, _ in rows)
        return svg.tree(rows, len(self.slots), description=said) if rows else None

    def _named(self, slot: SlotRecord, children: Sequence[svg.Mark]) -> str:
        title = "" if slot.kind == "baseline" else f" {slot.title[:30]}"
        return f"{_short(slot)}{title}: {len(children)} tried from it"

    # ------------------------------------------------------------------ the table

    def rows(self) -> list[Row]:
        """Return every slot, its texts cut to what the page has room for."""
        told = [(slot.hypothesis, texts.diff(slot.edits), _log(slot)) for slot in self.slots]
        n = len(self.slots)
        taken = ROW_BYTES * n + TRIAL_BYTES * len(self._trials)
        taken += sum(
            texts.weight(s.reason[:MAX_REASON]) + 2 * texts.weight(s.title) for s in self.slots
        )
        room = max(PAGE_BYTES - taken, TEXT_BYTES * n)
        lengths = [texts.weight(text) for three in told for text in three]
        cap = texts.fair_share(lengths, room)
        low, high = self._losses
        return [
            self._row(slot, text, cap, low, high)
            for slot, text in zip(self.slots, told, strict=True)
        ]

    def _row(
        self, slot: SlotRecord, told: tuple[str, str, str], cap: int, low: float, high: float
    ) -> Row:
        verdict = slot.verdict or slot.state
        word, letter, _ = LETTERS.get(verdict, (verdict, "…" if verdict == "running" else "?", ""))
        hypothesis, edits, log = told
        names = zip(("hypothesis", "diff", "log"), told, strict=True)
        parent = self._by_id.get(slot.parent or 0)
        own = [trial for trial in slot.own_trials if trial.curve]
        rival = slot.champion_before if slot.champion_before in self._rivals else None
        return Row(
            slot=slot,
            word=word,
            letter=letter,
            parent=_short(parent) if parent else "",
            seconds=sum(t.total_seconds for t in slot.trials) if slot.trials else None,
            memory_mb=max((t.peak_memory_bytes for t in slot.trials), default=0) / 2**20 or None,
            title=(slot.title or slot.name)[:MAX_TITLE],
            reason=slot.reason[:MAX_REASON],
            hypothesis=texts.head(hypothesis, cap),
            diff=texts.coloured(texts.head(edits, cap)) if edits else Markup(""),
            log=texts.tail(log, cap),
            cut=tuple(name for name, text in names if texts.weight(text) > cap),
            curve=svg.curve_path(own[-1].curve, low, high) if own else "",
            rival=f"c{rival}" if rival and own else "",
            trials=tuple(trial for trial in slot.trials if trial.purpose != HOLDOUT),
        )

    @cached_property
    def _rivals(self) -> dict[int, Sequence[tuple[float, float]]]:
        """Slot of each champion to the loss curve of its own training."""
        found: dict[int, Sequence[tuple[float, float]]] = {}
        for slot_id in self._champion_of:
            slot = self._by_id.get(slot_id)
            curves = [trial.curve for trial in slot.own_trials if trial.curve] if slot else []
            if curves:
                found[slot_id] = curves[-1]
        return found

    @cached_property
    def _losses(self) -> tuple[float, float]:
        return svg.loss_range(trial.curve for trial in self._trials if trial.curve)

    def rival_curves(self) -> list[tuple[str, str]]:
        """Return every champion's loss curve once, as (id, path)."""
        low, high = self._losses
        return [(f"c{i}", svg.curve_path(curve, low, high)) for i, curve in self._rivals.items()]

    @property
    def curve_scale(self) -> str:
        """The scale that the loss curves share, in words."""
        low, high = self._losses
        return f"from {low:.3g} (foot) to {high:.3g} (top)"

    # ------------------------------------------------------------------ arms, gates

    def arms(self) -> list[dict[str, Any]]:
        """Compare the proposers: what each tried, kept, gained and cost."""
        found: dict[str, list[SlotRecord]] = {}
        for slot in self.tried:
            if slot.verdict is not None:
                found.setdefault(slot.proposer or "(none)", []).append(slot)
        arms = []
        for name, slots in found.items():
            keeps = [slot for slot in slots if slot.verdict == "keep"]
            hours = sum(t.total_seconds for s in slots for t in s.trials) / 3600
            costs = [s.usage.cost_usd for s in slots if s.usage.cost_usd is not None]
            gain = sum(slot.gain or 0.0 for slot in keeps)
            arms.append(
                {
                    "name": name,
                    "tried": len(slots),
                    "kept": len(keeps),
                    "failed": sum(slot.score is None for slot in slots),
                    "gain": gain if keeps else None,
                    "hours": hours,
                    "per_hour": gain / hours if keeps and hours else None,
                    "tokens": sum(s.usage.input_tokens + s.usage.output_tokens for s in slots),
                    "dollars": sum(costs) if costs else None,
                    "per_dollar": gain / sum(costs) if keeps and sum(costs) else None,
                }
            )
        return arms

    def gates(self) -> list[dict[str, Any]]:
        """What each check looked at, refused, cost, and spared in training."""
        notes: dict[str, list[tuple[bool, float]]] = {}
        unapplied = sum(s.verdict == "invalid" and not s.gates for s in self.tried)
        if unapplied:
            done = len(self.tried) - unapplied
            notes["edits apply"] = [(False, 0.0)] * unapplied + [(True, 0.0)] * done
        for slot in self.tried:
            for gate in slot.gates:
                notes.setdefault(gate.name.replace("_", " "), []).append((gate.ok, gate.seconds))
        known = sum(slot.verdict == "duplicate" for slot in self.tried)
        claimed = sum(bool(slot.fingerprint) for slot in self.tried)
        if known or claimed:
            notes["not tried before"] = [(False, 0.0)] * known + [(True, 0.0)] * claimed
        audits = [
            (trial.status == "ok", trial.total_seconds)
            for trial in self._trials
            if trial.purpose == "audit" and trial.state == "done"
        ]
        if audits:
            notes["deeper audit of keeps"] = audits
        usual = [t.total_seconds for s in self.tried for t in s.own_trials if t.status == "ok"]
        price = statistics.median(usual) if usual else 0.0
        after = {name for name in notes if name.startswith("guard ")}
        after |= {"checks", "deeper audit of keeps"}
        return [
            {
                "name": name,
                "seen": len(found),
                "refused": sum(not ok for ok, _ in found),
                "seconds": sum(seconds for _, seconds in found),
                "spared": sum(not ok for ok, _ in found) * price if name not in after else None,
            }
            for name, found in notes.items()
        ]

    # ------------------------------------------------------------------ provenance

    def environment(self) -> list[tuple[str, str]]:
        """Where and on what the scores were made."""
        scored = [t for slot in self.slots for t in slot.own_trials if t.status == "ok"]
        last = scored[-1] if scored else None
        kinds = sorted({trial.score_kind for trial in scored if trial.score_kind})
        devices = sorted({f"{t.device} ({t.concurrency} side by side)" for t in self._trials})
        facts = [
            ("campaign", self.tag),
            ("branch", f"autoresearch/{self.tag}" if self.tag else ""),
            ("metric", f"{self.metric.name}, {self._better} is better"),
            ("budget of a trial", str(self.campaign.get("budget", ""))),
            ("seed", str(self.campaign.get("seed", ""))),
            ("editable files", ", ".join(self.campaign.get("files", ()))),
            ("base commit", str(self.campaign.get("base_commit", ""))),
            ("devices", "; ".join(devices)),
            ("scores are", ", ".join(kinds)),
            ("pytest-autoresearch", str(self.facts.get("version", ""))),
            ("data set", str(self.facts.get("data_sha256", ""))),
        ]
        if last is not None:
            facts += [(f"hash of {name}", value) for name, value in last.hashes.items()]
            layers = [f"{name}: {state}" for name, state in last.sandbox.items()]
            facts.append(("sandbox of the last score", "; ".join(layers)))
        return [(name, value) for name, value in facts if value]

    def sessions(self) -> list[dict[str, Any]]:
        """Return the processes that worked on the campaign, oldest first."""
        return [
            {
                "host": session.host,
                "worker": session.worker,
                "started": session.started,
                "ended": session.ended,
                "exit": "" if session.exit is None else session.exit,
                "asked": json.dumps(
                    {k: v for k, v in session.config.items() if v not in (None, "", False)}
                ),
            }
            for session in self.facts.get("sessions", ())
        ]


def _short(slot: SlotRecord) -> str:
    return "baseline" if slot.kind == "baseline" else slot.name


def _log(slot: SlotRecord) -> str:
    last = slot.own_trials[-1:] or slot.trials[-1:]
    return (last[0].log_tail or last[0].log_head).strip() if last else ""
