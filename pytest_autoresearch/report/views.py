"""What the HTML report tells, computed from the ledger's records alone; the template only shows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, Literal

from markupsafe import Markup

from ..core.experiment import Metric
from ..core.records import Attempt, Champion
from ..judge.noise import noise_of
from . import compare, progress, svg
from .rows import Table, short, word

Standing = Literal["unmeasured", "baseline", "unconfirmed", "confirmed", "open", "lost"]

_REFUSED = ("invalid", "duplicate", "guard")


def noise(attempts: Sequence[Attempt], champions: Sequence[Champion], metric: Metric) -> float:
    """Return sigma of one paired comparison, pooled over the campaign as its judge pools it."""
    return noise_of(attempts, champions, metric).sigma


class Report:
    """Everything the template asks for, computed from records alone."""

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
        self.sigma = noise(attempts, champions, self.metric)
        self.table = Table(attempts, champions)
        self.tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
        self.first = champions[0] if champions else None
        self.last = champions[-1] if champions else None
        self._by_id = {attempt.id: attempt for attempt in attempts}
        self._place = {attempt.id: i for i, attempt in enumerate(attempts)}
        self._champion_of = {champion.attempt_id: champion for champion in champions}
        self._runs = [run for attempt in attempts for run in attempt.runs]

    # ------------------------------------------------------------------ what runs

    @cached_property
    def flying(self) -> list[dict[str, Any]]:
        """Attempts in flight: by their workers' last word, or as the ledger knows them."""
        running = {
            attempt.name: attempt
            for attempt in self.attempts
            if attempt.state == "running" or any(t.state == "running" for t in attempt.runs)
        }
        said = [dict(s) for s in self.facts.get("status", ()) if s["attempt"] in running]
        for status in said:
            running.pop(status["attempt"])
        return [*said, *({"attempt": s.name, "title": s.title} for s in running.values())]

    # ------------------------------------------------------------------ what was gained

    @property
    def standing(self) -> Standing:
        """How much is known of the gain."""
        if self.first is None:
            return "unmeasured"
        if self.champion_attempt is None:
            return "baseline"
        found = self.confirmation and self.confirmation["confirmed"]
        if not found:
            return "unconfirmed"
        if found["low"] > 0:
            return "confirmed"
        return "open" if found["high"] > 0 else "lost"

    @property
    def champion_attempt(self) -> Attempt | None:
        """The attempt that made the last champion, if it is not the baseline."""
        known = self.last is not None and len(self.champions) > 1
        return self._by_id.get(self.last.attempt_id) if known and self.last else None

    @property
    def gained(self) -> float:
        """Gain of the last champion over the first by the pairs that its keeps were judged by."""
        return self._gained(len(self.champions))

    def _gained(self, champions: int) -> float:
        attempts = (
            self._by_id.get(champion.attempt_id) for champion in self.champions[1:champions]
        )
        return math.fsum(attempt.gain or 0.0 for attempt in attempts if attempt)

    @property
    def confirmation(self) -> Mapping[str, Any] | None:
        """What is confirmed of the present champion, or None."""
        confirmation: Mapping[str, Any] | None = self.facts.get("confirmation")
        present = confirmation and self.last and confirmation["champion"] == self.last.version
        return confirmation if present else None

    @property
    def holdout(self) -> Mapping[str, Any] | None:
        """The gain on the holdout, told only when no further trial can profit from it."""
        found = None if self.live or self.confirmation is None else self.confirmation["holdout"]
        return found if found is None else dict(found)

    @property
    def transfers(self) -> list[Mapping[str, Any]]:
        """What the present champion gains under other conditions, as far as that was tried."""
        version = self.last.version if self.last else 0
        return [t for t in self.facts.get("transfers", ()) if t["champion"] == version]

    @property
    def outdated(self) -> bool:
        """Whether only an earlier champion was confirmed."""
        return bool(self.facts.get("confirmation")) and self.confirmation is None

    @property
    def forgeable(self) -> list[tuple[str, str]]:
        """Kinds of the scores that a candidate could have forged, each with how many are so."""
        runs = [run for attempt in self.attempts for run in attempt.own_runs]
        kinds = [run.score_kind for run in runs if run.score is not None]
        found = sorted(set(kinds) - {"trusted", ""})
        return [(kind, "All" if set(kinds) == {kind} else "Some") for kind in found]

    @property
    def spent(self) -> str:
        """Device hours and dollars of all attempts."""
        seconds = sum(run.total_seconds for run in self._runs)
        dollars = sum(attempt.usage.cost_usd or 0.0 for attempt in self.attempts)
        hours = f"{seconds / 3600:.2f} device hours"
        return hours + (f", ${dollars:,.2f}" if dollars else "")

    def show(self, champion: Champion) -> str:
        """Return a champion's mean, standard error and replicates."""
        from ..judge.verdicts import show

        return show(champion.scores.values())

    @property
    def tally(self) -> list[tuple[str, int]]:
        """How many attempts came to what, most first."""
        counts: dict[str, int] = {}
        for attempt in self.tried:
            counts[word(attempt)] = counts.get(word(attempt), 0) + 1
        return sorted(counts.items(), key=lambda item: -item[1])

    def intervals(self) -> Markup | None:
        """Return the picture of the gain as kept, as confirmed and on the holdout."""
        if self.confirmation is None:
            return None
        kept = self.confirmation["kept"]
        rows = [svg.Interval("when kept", kept, kept, kept)]
        for name, found in (
            ("on fresh seeds", self.confirmation["confirmed"]),
            ("on the holdout", self.holdout),
        ):
            if found:
                rows.append(svg.Interval(name, found["gain"], found["low"], found["high"]))
        said = "; ".join(f"{r.name} {r.gain:+.6f} [{r.low:+.6f}, {r.high:+.6f}]" for r in rows)
        return svg.intervals(rows, unit=self.metric.unit or self.metric.name, description=said)

    # ------------------------------------------------------------------ pictures

    def _level(self, attempt: Attempt) -> float | None:
        """Where an attempt stands beside the champion's mean, the luck of its seeds taken out."""
        if attempt.id in self._champion_of and attempt.kind != "baseline":
            return self._champion_of[attempt.id].mean
        before = self._champion_of.get(attempt.champion_before or 0)
        if attempt.score is None or attempt.gain is None or before is None:
            return attempt.score
        return before.mean - (attempt.gain if self.metric.direction == "min" else -attempt.gain)

    def _mark(self, attempt: Attempt) -> svg.Mark:
        verdict = attempt.verdict or attempt.state
        score = "" if attempt.score is None else f" {attempt.score:.6f}"
        sigma = "" if attempt.gain_sigma is None else f" ({attempt.gain_sigma:+.1f}σ)"
        tip = f"{attempt.name} {word(attempt)}{score}{sigma} {attempt.title[:80]}".strip()
        shape: svg.Shape = "dot"
        if verdict in ("keep", "baseline"):
            shape = "keep" if verdict == "keep" else "baseline"
        elif attempt.score is None:
            shape = "square" if verdict in _REFUSED else "cross"
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
        reigns = [
            progress.ChampionSpan(start, end, champion.mean)
            for start, end, champion in zip(starts, ends, self.champions, strict=False)
        ]
        said = f"{len(self.tried)} trials, {len(self.champions[1:])} kept"
        if self.first and self.last:
            said += f"; {self.metric.name} from {self.first.mean:.6f} to {self.last.mean:.6f}"
        return progress.progress(
            self._marks,
            reigns,
            self.sigma,
            places=len(self.attempts),
            ticks=self._ticks,
            metric=self.metric.name,
            direction=self.metric.direction,
            description=said + ". The table below holds the same.",
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
        """About ten trials by their number, at a round step."""
        steps = (1, 2, 5, 10, 20, 50, 100, 200, 500, 10**6)
        numbered = [attempt for attempt in self.tried if attempt.kind == "mutation"]
        step = next(step for step in steps if len(numbered) <= 12 * step)
        found = [(self._place[s.id], s.number) for s in numbered if s.number % step == 0]
        return [(place, f"{number}") for place, number in found]

    def spending(self) -> list[Markup]:
        """Return the champion's gain over device hours and, if anything was billed, dollars."""
        if self.first is None:
            return []
        hours = [(t.finished or t.started, t.total_seconds / 3600) for t in self._runs]
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
            points.append((spent, self._gained(number)))
        total = sum(cost for _, cost in costs)
        points.append((total, points[-1][1]))
        said = f"{total:.2f} {what} spent in all, for a gain of {points[-1][1]:+.6f}."
        return svg.steps(
            name, points, x_name=what, y_name=f"gain, {self.metric.name}", description=said
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
            (self._named(self._by_id[parent], found), self._place[parent], found)
            for parent, found in sorted(children.items(), key=lambda i: self._place.get(i[0], 0))
            if parent in self._by_id
        ]
        said = "; ".join(label for label, _, _ in rows)
        return svg.tree(rows, len(self.attempts), description=said) if rows else None

    def _named(self, attempt: Attempt, children: Sequence[svg.Mark]) -> str:
        title = "" if attempt.kind == "baseline" else f" {attempt.title[:30]}"
        return f"{short(attempt)}{title}: {len(children)} tried from it"

    # ------------------------------------------------------------------ comparisons

    def hours(self) -> list[dict[str, Any]]:
        """What the device hours went into."""
        return compare.hours(self.attempts)

    def arms(self) -> list[dict[str, Any]]:
        """Compare the proposers."""
        return compare.arms(self.tried)

    def check_notes(self) -> list[dict[str, Any]]:
        """What each check looked at, caught, cost and spared."""
        return compare.check_notes(self.attempts)

    def examined(self) -> list[Mapping[str, Any]]:
        """Keeps that were trained on fresh seeds one by one, the fallen first."""
        return compare.survivals(self.attempts, self.confirmation)

    def left_out(self) -> list[tuple[Attempt, Attempt]]:
        """Keeps whose removal cost nothing."""
        return compare.left_out(self.attempts)

    # ------------------------------------------------------------------ provenance

    @cached_property
    def briefs(self) -> dict[int, str]:
        """Attempts that were the first to see a version of the brief, oldest first, with its hash."""
        first: dict[str, int] = {}
        for attempt in self.tried:
            if attempt.meta.get("brief"):
                first.setdefault(str(attempt.meta["brief"])[:16], attempt.id)
        return {attempt_id: brief for brief, attempt_id in first.items()}

    def environment(self) -> list[tuple[str, str]]:
        """Where and on what the scores were made."""
        scored = [t for attempt in self.attempts for t in attempt.own_runs if t.status == "ok"]
        last = scored[-1] if scored else None
        kinds = sorted({run.score_kind for run in scored if run.score_kind})
        devices = sorted({f"{t.device} ({t.concurrency} side by side)" for t in self._runs})
        versions: Mapping[str, str] = self.facts.get("versions") or {}
        briefs = self.briefs.items()
        facts = [
            ("campaign", self.tag),
            ("branch", f"autoresearch/{self.tag}" if self.tag else ""),
            ("metric", f"{self.metric.name}, {self._better} is better"),
            ("budget of a trial", str(self.campaign.get("budget", ""))),
            ("seed", str(self.campaign.get("seed", ""))),
            ("editable files", ", ".join(self.campaign.get("files", ()))),
            ("program.md", "; ".join(f"{b} from {self._by_id[i].name}" for i, b in briefs)),
            ("base commit", str(self.campaign.get("base_commit", ""))),
            ("devices", "; ".join(devices)),
            ("scores are", ", ".join(kinds)),
            ("this page was written by", ", ".join(f"{k} {v}" for k, v in versions.items())),
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
