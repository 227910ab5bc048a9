"""Everything that the HTML report shows, computed from the ledger's records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from markupsafe import Markup

from ..core.experiment import Metric
from ..core.records import Attempt, Champion, Confirmation, Gain, Transfer
from ..judge.confirmation import kept_gain, level
from ..judge.noise import noise_of
from . import progress, svg
from .rows import Table, short, word

Stage = Literal["unmeasured", "baseline", "unconfirmed", "confirmed", "open", "lost"]

_SHAPES: dict[str, svg.Shape] = {
    "keep": "keep", "baseline": "baseline",
    "invalid": "square", "duplicate": "square", "guard": "square",
}  # fmt: skip
"""Marks of verdicts; others are dots with a score and crosses without."""


class Report:
    """What the template asks for."""

    def __init__(
        self,
        attempts: Sequence[Attempt],
        champions: Sequence[Champion],
        facts: Mapping[str, Any],
        live: bool,
    ) -> None:
        self.attempts, self.champions, self.facts, self.live = attempts, champions, facts, live
        self.campaign: Mapping[str, Any] = facts.get("campaign") or {}
        self.metric = Metric(**self.campaign.get("metric", {}))
        self.tag = facts.get("tag", "")
        self.at = facts.get("at", 0.0)
        self.sigma = noise_of(attempts, champions, self.metric).sigma
        self.table = Table(attempts, champions)
        self.tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
        self.first = champions[0] if champions else None
        self.last = champions[-1] if champions else None
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._place = {attempt.id: i for i, attempt in enumerate(attempts)}
        self._champion_of = {champion.attempt_id: champion for champion in champions}
        self._runs = [run for attempt in attempts for run in attempt.runs]

    # ------------------------------------------------------------------ attempts in flight

    @cached_property
    def in_flight(self) -> list[dict[str, Any]]:
        """Attempts that run, with their workers' status where there is one."""
        running = {
            attempt.name: attempt
            for attempt in self.attempts
            if attempt.state == "running" or any(run.state == "running" for run in attempt.runs)
        }
        shown = [dict(s) for s in self.facts.get("status", ()) if s["attempt"] in running]
        for status in shown:
            running.pop(status["attempt"])
        return [*shown, *({"attempt": a.name, "title": a.title} for a in running.values())]

    # ------------------------------------------------------------------ the gain

    @property
    def standing(self) -> Stage:
        """How far the gain is established."""
        if self.first is None:
            return "unmeasured"
        if self.champion_attempt is None:
            return "baseline"
        gain = self.confirmation and self.confirmation.confirmed
        return gain.standing if gain else "unconfirmed"

    @property
    def champion_attempt(self) -> Attempt | None:
        """The attempt that made the last champion, if it is not the baseline."""
        return self._by_id.get(self.champions[-1].attempt_id) if len(self.champions) > 1 else None

    @property
    def gained(self) -> float:
        """Gain of the last champion over the first, by the pairs that its keeps were judged by."""
        return kept_gain(self.attempts, self.champions)

    @property
    def confirmation(self) -> Confirmation | None:
        """The confirmation of the present champion, or None."""
        confirmation: Confirmation | None = self.facts.get("confirmation")
        present = confirmation and self.last and confirmation.champion == self.last.version
        return confirmation if present else None

    @property
    def holdout(self) -> Gain | None:
        """The gain on the holdout; None while the campaign runs and could still profit from it."""
        return self.confirmation.holdout if self.confirmation and not self.live else None

    @property
    def transfers(self) -> list[Transfer]:
        """Gains of the present champion under other conditions."""
        version = self.last.version if self.last else 0
        return [gain for gain in self.facts.get("transfers", ()) if gain.champion == version]

    @property
    def forgeable(self) -> list[tuple[str, str]]:
        """Kinds of scores that a candidate could have forged, each with ``All`` or ``Some``."""
        runs = [run for attempt in self.attempts for run in attempt.own_runs]
        kinds = [run.score_kind for run in runs if run.score is not None]
        weak = sorted(set(kinds) - {"trusted", ""})
        return [(kind, "All" if set(kinds) == {kind} else "Some") for kind in weak]

    @property
    def spent(self) -> str:
        """Device hours and dollars of all attempts."""
        seconds = sum(run.total_seconds for run in self._runs)
        dollars = sum(attempt.usage.cost_usd or 0.0 for attempt in self.attempts)
        hours = f"{seconds / 3600:.2f} device hours"
        return hours + (f", ${dollars:,.2f}" if dollars else "")

    @property
    def tally(self) -> list[tuple[str, int]]:
        """Attempts by verdict, the most frequent first."""
        return Counter(word(attempt) for attempt in self.tried).most_common()

    def intervals(self) -> Markup | None:
        """Return the picture of the gain as kept, as confirmed and on the holdout."""
        if self.confirmation is None:
            return None
        kept = self.confirmation.kept
        rows = {
            "when kept": Gain(kept, kept, kept, 0),
            "on fresh seeds": self.confirmation.confirmed,
            "on the holdout": self.holdout,
        }
        gains = {name: gain for name, gain in rows.items() if gain}
        words = "; ".join(f"{name} {gain}" for name, gain in gains.items())
        return svg.intervals(gains, unit=self.metric.unit or self.metric.name, description=words)

    # ------------------------------------------------------------------ pictures

    @cached_property
    def _levels(self) -> dict[int, float]:
        """Height of each champion: the baseline's mean less the paired gains of the keeps."""
        return {
            champion.attempt_id: level(self.attempts, self.champions[:number], self.metric)
            for number, champion in enumerate(self.champions, 1)
        }

    def _level(self, attempt: Attempt) -> float | None:
        """Return an attempt's height: its champion's less its paired gain."""
        before = self._levels.get(attempt.champion_before or 0)
        if attempt.score is None or attempt.gain is None or before is None:
            return attempt.score
        return before - (attempt.gain if self.metric.direction == "min" else -attempt.gain)

    def _mark(self, attempt: Attempt) -> svg.Mark:
        verdict = attempt.verdict or attempt.state
        score = "" if attempt.score is None else f" {attempt.score:.6f}"
        sigma = "" if attempt.gain_sigma is None else f" ({attempt.gain_sigma:+.1f}σ)"
        tip = f"{attempt.name} {word(attempt)}{score}{sigma} {attempt.title[:80]}".strip()
        shape: svg.Shape = "dot" if attempt.score is not None else "cross"
        shape = _SHAPES.get(verdict, shape)
        return svg.Mark(
            attempt.id, self._place[attempt.id], self._level(attempt), shape, attempt.title, tip
        )

    @property
    def _marks(self) -> list[svg.Mark]:
        return [self._mark(attempt) for attempt in self.attempts if attempt.verdict is not None]

    @property
    def _better(self) -> str:
        return "lower" if self.metric.direction == "min" else "higher"

    def progress(self) -> Markup:
        """Return the progress picture."""
        starts: list[float] = [self._place.get(c.attempt_id, 0) for c in self.champions]
        ends = [*starts[1:], len(self.attempts) - 0.5]
        spans = [
            progress.ChampionSpan(start, end, self._levels[champion.attempt_id])
            for start, end, champion in zip(starts, ends, self.champions, strict=False)
        ]
        words = f"{len(self.tried)} attempts, {len(self.champions[1:])} kept"
        if self.first and self.last:
            reached = self._levels[self.last.attempt_id]
            words += f"; {self.metric.name} from {self.first.mean:.6f} to {reached:.6f}"
        return progress.progress(
            self._marks,
            spans,
            self.sigma,
            places=len(self.attempts),
            ticks=self._ticks,
            metric=self.metric.name,
            direction=self.metric.direction,
            description=words + ". The table below holds the same.",
        )

    def legend(self) -> list[tuple[Markup, str]]:
        """Return the shapes that occur in the progress picture, with their meaning."""
        shapes = {mark.shape for mark in self._marks}
        return [
            (progress.sample(shape), meaning)
            for shape, meaning in (
                ("keep", "kept"),
                ("dot", "not kept; a triangle: far worse, off the scale"),
                ("baseline", "baseline"),
                ("cross", "crashed, timed out or cheated"),
                ("square", "refused before training, or by a guard"),
            )
            if shape in shapes
        ]

    @property
    def _ticks(self) -> list[tuple[int, str]]:
        """About ten mutations by their number, at a round step."""
        steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6)
        numbered = [attempt for attempt in self.tried if attempt.kind == "mutation"]
        step = next(step for step in steps if len(numbered) <= 12 * step)
        return [(self._place[a.id], f"{a.number}") for a in numbered if a.number % step == 0]

    def spending(self) -> list[Markup]:
        """Return the champion's gain over device hours and, if anything was billed, dollars."""
        if self.first is None:
            return []
        hours = [(run.finished or run.started, run.total_seconds / 3600) for run in self._runs]
        dollars = [
            (attempt.finished or attempt.started, attempt.usage.cost_usd)
            for attempt in self.attempts
            if attempt.usage.cost_usd
        ]
        pictures = [self._spent("hours", "device hours", hours)]
        if dollars:
            pictures.append(self._spent("dollars", "dollars of proposals", dollars))
        return pictures

    def _spent(self, name: str, what: str, costs: Sequence[tuple[float, float]]) -> Markup:
        points = []
        for number, champion in enumerate(self.champions, 1):
            spent = sum(cost for at, cost in costs if at <= champion.at)
            points.append((spent, kept_gain(self.attempts, self.champions[:number])))
        total = sum(cost for _, cost in costs)
        points.append((total, points[-1][1]))
        words = f"{total:.2f} {what} spent in all, for a gain of {points[-1][1]:+.6f}."
        return svg.steps(
            name, points, x_name=what, y_name=f"gain, {self.metric.name}", description=words
        )

    def tree(self) -> Markup | None:
        """Return the tree of parents, a line for each attempt that has children."""
        children: dict[int, list[svg.Mark]] = {}
        for attempt in self.tried:
            if attempt.parent in self._by_id and attempt.verdict is not None:
                children.setdefault(attempt.parent or 0, []).append(self._mark(attempt))
        for attempt_id in self._champion_of:
            children.setdefault(attempt_id, [])
        rows = [
            (self._named(self._by_id[parent], marks), self._place[parent], marks)
            for parent, marks in sorted(children.items(), key=lambda i: self._place.get(i[0], 0))
            if parent in self._by_id
        ]
        words = "; ".join(label for label, _, _ in rows)
        return svg.tree(rows, len(self.attempts), description=words) if rows else None

    def _named(self, attempt: Attempt, children: Sequence[svg.Mark]) -> str:
        title = "" if attempt.kind == "baseline" else f" {attempt.title[:30]}"
        return f"{short(attempt)}{title}: {len(children)} tried from it"

    # ------------------------------------------------------------------ provenance

    @cached_property
    def briefs(self) -> dict[int, str]:
        """Attempt that first used each version of the brief, oldest first, with its hash."""
        first: dict[str, int] = {}
        for attempt in self.tried:
            if attempt.meta.get("brief"):
                first.setdefault(str(attempt.meta["brief"])[:16], attempt.id)
        return {attempt_id: brief for brief, attempt_id in first.items()}

    def environment(self) -> list[tuple[str, str]]:
        """Return the conditions of the scores, from the budget to the sandbox."""
        scored = [r for attempt in self.attempts for r in attempt.own_runs if r.status == "ok"]
        last = scored[-1] if scored else None
        kinds = sorted({run.score_kind for run in scored if run.score_kind})
        devices = sorted({f"{run.device} ({run.concurrency} in parallel)" for run in self._runs})
        versions: Mapping[str, str] = self.facts.get("versions") or {}
        briefs = self.briefs.items()
        facts = [
            ("campaign", self.tag),
            ("branch", f"autoresearch/{self.tag}" if self.tag else ""),
            ("metric", f"{self.metric.name}, {self._better} is better"),
            ("budget of a run", str(self.campaign.get("budget", ""))),
            ("seed", str(self.campaign.get("seed", ""))),
            ("editable files", ", ".join(self.campaign.get("files", ()))),
            ("program.md", "; ".join(f"{b} from {self._by_id[i].name}" for i, b in briefs)),
            ("base commit", str(self.campaign.get("base_commit", ""))),
            ("devices", "; ".join(devices)),
            ("scores are", ", ".join(kinds)),
            ("page written by", ", ".join(f"{k} {v}" for k, v in versions.items())),
            ("data set", str(self.facts.get("data_sha256", ""))),
        ]
        if last is not None:
            facts += [(f"hash of {name}", value) for name, value in last.hashes.items()]
            layers = [f"{name}: {state}" for name, state in last.sandbox.items()]
            facts.append(("sandbox of the last score", "; ".join(layers)))
        return [(name, value) for name, value in facts if value]
