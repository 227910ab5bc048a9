"""Lines on the terminal: the session's header, one line an attempt, progress and the summary."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..core.experiment import Direction, Metric
from ..core.money import prices_version
from ..core.outcome import VERDICTS
from ..core.records import Attempt
from ..core.text import harmless
from ..judge.confirmation import kept_gain, level, percent
from ..judge.confirmation import lines as confirmation_lines
from ..judge.noise import noise_of
from ..judge.verdicts import Judge, Rule, preview, show
from ..ledger.spend import CostBudget
from ..ledger.store import Ledger
from . import compare

EVERY = 10
"""Attempts between two lines of `standing`."""


def write(reporter: Any, line: str, **markup: bool) -> None:
    """Write a line; on a terminal, wrap it at words and indent the rest."""
    line = harmless(line)
    parts = [line]
    if reporter.isatty:
        width = max(20, reporter._tw.fullwidth - 1)
        parts = textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)
    for part in parts or [""]:
        reporter.write_line(part, **markup)


def result_line(name: str, facts: Mapping[str, str], direction: Direction) -> str:
    """Return ``K 0.971234  -0.001204 (3.1 sigma better) mutation-0007 halve batch +1/-1 0:33``.

    After the score: its paired change, and that in standard errors. At the end: lines
    added and removed, peak memory, and the time of all its runs. An attempt built on a discard
    names its parent: ``… halve batch size on mutation-0004 …``.

    Args:
        name: Of the attempt.
        facts: Its junit properties.
        direction: Of the metric.
    """
    verdict = facts.get("verdict", "")
    letter = VERDICTS[verdict].letter if verdict in VERDICTS else "?"
    score = facts.get("score")
    parts = [letter, f"{float(score):.6f}" if score else "-" * 8]
    if facts.get("gain") and facts.get("gain_sigma"):
        change = float(facts["gain"]) * (-1 if direction == "min" else 1)
        sigma = float(facts["gain_sigma"])
        word = "better" if sigma > 0 else "worse"
        # rounded, and zero has no sign:
        parts.append(f" {round(change, 6) + 0.0:+.6f} ({abs(sigma):.1f} sigma {word})")
    parts += [name, " ".join(facts.get("title", "").split())]
    if facts.get("parent") and facts.get("champion_before") not in (None, "", facts["parent"]):
        parts.append(f"on {facts['parent']}")
    if verdict not in ("baseline", ""):
        parts.append(f"+{facts.get('lines_added', 0)}/-{facts.get('lines_removed', 0)}")
    if peak := float(facts.get("peak_memory_mb") or 0):
        parts.append(f"{peak:.0f} MiB")
    if seconds := float(facts.get("total_seconds") or 0):
        parts.append(clock(seconds))
    line = " ".join(part for part in parts if part)
    if not score and facts.get("reason"):
        line += f": {facts['reason'].splitlines()[0][:100]}"
    return line


def markup(verdict: str) -> dict[str, bool]:
    """Return the colours of an attempt's line; discards, the most frequent, have none."""
    if verdict == "keep":
        return {"green": True, "bold": True}
    return {} if verdict in ("discard", "") else {VERDICTS[verdict].colour: True}


@dataclass(frozen=True)
class SessionView:
    """What the terminal shows of a session.

    Attributes:
        tag: Campaign.
        first: Number of the session's first attempt.
        resumed: False for a new campaign.
        proposer, rule: Of mutations and of verdicts, by name.
        budget: Training budget of a run, as text.
        device: What runs train on.
        score: How far scores can be trusted, and why, as text.
        contract: Whether candidates obey the training contract.
        metric: Of the experiment.
        iterations: Attempts asked for; 0 is until stopped.
        planned: Attempts collected.
        html: Path of the report page, or ''.
        stopping: Why no further attempt starts, or ''.
        open_ledger: Returns the campaign's ledger; a dry run must not create one.
    """

    tag: str
    first: int
    resumed: bool
    proposer: str
    rule: Rule
    budget: str
    device: str
    score: str
    contract: bool
    metric: Metric
    iterations: int
    planned: int
    html: str
    stopping: str
    open_ledger: Callable[[], Ledger]

    @property
    def judge(self) -> Judge:
        """The verdict rule with the metric's direction."""
        return Judge(self.rule, self.metric.direction)


def header(view: SessionView) -> list[str]:
    """Return the lines for pytest's header: campaign, proposer, judge, budget, device, sandbox."""
    why = {
        "equal": " (as long as the baseline needs for so many tokens here, counted in CPU work)",
        "work": " (units of training data)",
    }.get(view.budget.split(":")[0] if ":" in view.budget else "", "")
    state = f"resumed at attempt {view.first}" if view.resumed else "new"
    lines = [
        f"autoresearch: campaign {view.tag} ({state}), branch autoresearch/{view.tag}",
        f"proposer: {view.proposer}; judge: {view.rule}; budget: {view.budget}{why}; "
        f"device: {view.device}",
        view.score,
    ]
    if view.contract or view.resumed:
        ledger = view.open_ledger()
        noise = noise_of(ledger.attempts(), ledger.champions(), view.metric)
        lines.append(preview(noise, view.metric.name, view.judge, view.iterations))
    return lines


def tally(attempts: Sequence[Attempt]) -> str:
    """Count attempts by verdict: ``1 kept, 2 discarded``."""
    counts = Counter(attempt.verdict or attempt.state for attempt in attempts)
    order = [*VERDICTS, *sorted(counts)]
    return ", ".join(
        f"{counts[key]} {VERDICTS[key].word if key in VERDICTS else key}"
        for key in dict.fromkeys(order)
        if counts[key]
    )


def clock(seconds: float) -> str:
    """Return ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def standing(view: SessionView, tried: int, seconds: float) -> str:
    """Return where the campaign stands, in one line.

    Args:
        view: Of the session.
        tried: Attempts of this session so far.
        seconds: Their duration.
    """
    ledger = view.open_ledger()
    records, champions = ledger.attempts(), ledger.champions()
    attempts = [attempt for attempt in records if attempt.kind != "baseline"]
    parts = [tally(attempts)]
    if len(champions) > 1:
        last = champions[-1]
        parts.append(
            f"champion {level(records, champions, view.metric):.6f} by "
            f"{ledger.attempt(last.attempt_id).name}, gain {kept_gain(records, champions):+.6f}"
        )
    parts.append(f"{tried} attempts in {clock(seconds)}")
    left = view.planned - tried
    if view.iterations and left > 0:
        parts.append(f"about {clock(seconds / tried * left)} for {left} more")
    if spent := _spent(ledger, attempts):
        parts.append(spent)
    return f"--- {'; '.join(parts)}"


def _spent(ledger: Ledger, attempts: Sequence[Attempt]) -> str:
    if not any(attempt.usage.requests for attempt in attempts):
        return ""
    return f"spent on proposals: ${CostBudget(ledger.path).spent():.4f}"


def summary(view: SessionView) -> list[str]:
    """Return the block at the end: baseline, champion, confirmation, next commands."""
    ledger, metric = view.open_ledger(), view.metric
    records, champions = ledger.attempts(), ledger.champions()
    attempts = [attempt for attempt in records if attempt.kind != "baseline"]
    counts = f" ({tally(attempts)})" if attempts else ""
    lines = [f"campaign {view.tag}: {len(attempts)} attempts{counts}"]
    stopped = [f"stopped: {view.stopping}"] if view.stopping else []
    if not champions:
        return [*lines, "the baseline is not measured yet", *stopped]
    first, last = champions[0], champions[-1]
    lines.append(f"baseline  {metric.name} {show(first.scores.values())}")
    lines.append(preview(noise_of(records, champions, metric), metric.name, view.judge))
    if last.version > 1:
        kept, gain = ledger.attempt(last.attempt_id), kept_gain(records, champions)
        reached = level(records, champions, metric)
        lines.append(
            f"champion  {metric.name} {reached:.6f} on the baseline's seeds, gain {gain:+.6f} "
            f"({percent(gain, champions)})  {kept.name} {' '.join(kept.title.split())}"
        )
        confirmation = ledger.confirmation()
        if confirmation and confirmation.champion == last.version:
            lines += confirmation_lines(confirmation, metric.name)
        else:
            lines.append("not confirmed on fresh seeds yet:  python -m pytest_autoresearch verify")
        lines.append(f"look:  git log -p {first.commit[:10]}..autoresearch/{view.tag}")
        lines.append(f"take:  git merge autoresearch/{view.tag}")
    else:
        lines.append("no mutation was kept; the baseline stands")
    if earned := compare.earned(attempts):
        lines.append(f"proposers:  {earned}")
    if spent := _spent(ledger, attempts):
        lines.append(f"{spent} (an estimate by {prices_version()})")
    lines.append(f"every attempt:  git for-each-ref refs/autoresearch/{view.tag}")
    if view.html:
        lines.append(f"report:  {view.html}")
    return lines + stopped
