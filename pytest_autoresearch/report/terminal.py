"""What a person reads: what is in force, a line an attempt, where the campaign stands, the summary."""

from __future__ import annotations

import textwrap
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from ..core.experiment import Direction
from ..core.outcome import LETTERS
from ..core.text import harmless
from ..judge.verdicts import Judge, preview, show

if TYPE_CHECKING:
    from ..core.records import Attempt
    from ..ledger.store import Ledger
    from ..session.session import Session

EVERY = 10
"""After how many attempts it is said where the campaign stands."""


def write(reporter: Any, line: str, **markup: bool) -> None:
    """Write a line; on a terminal it is wrapped at words, its rest indented."""
    line = harmless(line)
    parts = [line]
    if reporter.isatty:
        width = max(20, reporter._tw.fullwidth - 1)
        parts = textwrap.wrap(line, width, subsequent_indent="    ", break_on_hyphens=False)
    for part in parts or [""]:
        reporter.write_line(part, **markup)


def result_line(name: str, facts: Mapping[str, str], direction: Direction) -> str:
    """Return ``K 0.971234 (-0.001204, 3.1σ) mutation-0007 halve batch size +1/-1 556 MiB 0:33``.

    In brackets: the paired change of the score, and the gain in standard errors. What it cost
    stands at the end: lines, peak memory, and the time of all its trials. What was built on a
    discard names it: ``… halve batch size on mutation-0004 …``.
    """
    verdict = facts.get("verdict", "")
    letter = LETTERS[verdict][1] if verdict in LETTERS else "?"
    score = facts.get("score")
    parts = [letter, f"{float(score):.6f}" if score else "-" * 8]
    if facts.get("gain") and facts.get("gain_sigma"):
        change = float(facts["gain"]) * (-1 if direction == "min" else 1)
        sigma = float(facts["gain_sigma"])  # rounded, and zero has no sign:
        parts.append(f"({round(change, 6) + 0.0:+.6f}, {round(sigma, 1) + 0.0:.1f}σ)")
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
    """Return how an attempt's line is coloured; what happens most often is left plain."""
    if verdict == "keep":
        return {"green": True, "bold": True}
    return {} if verdict in ("discard", "") else {LETTERS[verdict][2]: True}


def header(session: Session) -> list[str]:
    """What is in force, and why."""
    from ..training.devices import cpu_name, visible_gpus

    plan, options = session.plan, session.options
    why = {
        "equal": "as long as the baseline needs for so many tokens here, counted in CPU work",
        "work": "units of training data",
    }.get(plan.budget.split(":")[0] if ":" in plan.budget else "", "")
    gpus = visible_gpus()
    device = f"{len(gpus)} GPU(s)" if gpus else cpu_name()
    state = "new" if plan.first == 1 and plan.baselines else f"resumed at attempt {plan.first}"
    contract = session.experiment.run is None
    lines = [
        f"autoresearch: campaign {plan.tag} ({state}), branch autoresearch/{plan.tag}",
        f"proposer: {session.proposer}; judge: {options.judge}; budget: {plan.budget}"
        + (f" ({why})" if why else "")
        + f"; device: {device}",
    ]
    if contract:
        from ..sandbox.launch import survey
        from ..sandbox.policy import Report

        if options.sandbox == "off":
            lines.append("sandbox: off; score: unverified")
        else:
            report: Report = survey()
            score = "trusted" if report.verified else "unverified"
            lines.append(f"sandbox: {report.headline()}; score: {score}")
    else:
        lines.append("score: self-reported by the command")
    if contract or not plan.baselines:
        from ..judge.noise import noise_of

        noise = noise_of(
            session.ledger.attempts(), session.ledger.champions(), session.experiment.metric
        )
        lines.append(preview(noise, plan.metric, _judge(session), options.iterations))
    return lines


def _judge(session: Session) -> Judge:
    return Judge(session.options.judge, session.experiment.metric.direction)


def tally(attempts: Sequence[Attempt]) -> str:
    """Return how many attempts came to what: ``1 kept, 2 discarded``."""
    counts = Counter(attempt.verdict or attempt.state for attempt in attempts)
    order = [*LETTERS, *sorted(counts)]
    return ", ".join(
        f"{counts[key]} {LETTERS[key][0] if key in LETTERS else key}"
        for key in dict.fromkeys(order)
        if counts[key]
    )


def clock(seconds: float) -> str:
    """Return ``0:07`` or ``1:02:03``."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def standing(session: Session, tried: int, seconds: float) -> str:
    """Return where the campaign stands, in one line.

    Args:
        session: That runs it.
        tried: Attempts of this session so far.
        seconds: What they took.
    """
    from ..judge.confirmation import kept_gain

    ledger = session.ledger
    attempts = [attempt for attempt in ledger.attempts() if attempt.kind != "baseline"]
    facts = [tally(attempts)]
    champions = ledger.champions()
    if len(champions) > 1:
        last = champions[-1]
        name = ledger.attempt(last.attempt_id).name
        facts.append(
            f"champion {last.mean:.6f} by {name}, gain {kept_gain(ledger.attempts(), champions):+.6f}"
        )
    facts.append(f"{tried} attempts in {clock(seconds)}")
    left = session.plan.attempts - tried
    if session.options.iterations and left > 0:
        facts.append(f"about {clock(seconds / tried * left)} for {left} more")
    if spent := _spent(ledger, attempts):
        facts.append(spent)
    return f"--- {'; '.join(facts)}"


def _spent(ledger: Ledger, attempts: Sequence[Attempt]) -> str:
    if not any(attempt.usage.requests for attempt in attempts):
        return ""
    from ..ledger.spend import CostBudget

    return f"spent on proposals: ${CostBudget(ledger.path).spent():.4f}"


def confirmation_lines(facts: dict[str, Any] | None, version: int, metric: str) -> list[str]:
    """Return what is confirmed of the champion of `version`, or that nothing is yet."""
    from ..judge.confirmation import lines

    if not facts or facts["champion"] != version:
        return ["not confirmed on fresh seeds yet:  python -m pytest_autoresearch verify"]
    return list(lines(facts, metric))


def summary(session: Session) -> list[str]:
    """Where the campaign stands, and what to do with the winner."""
    from ..judge.confirmation import kept_gain
    from ..judge.noise import noise_of

    ledger = session.ledger
    champions = ledger.champions()
    attempts = [attempt for attempt in ledger.attempts() if attempt.kind != "baseline"]
    said = tally(attempts)
    lines = [
        f"campaign {session.plan.tag}: {len(attempts)} attempts" + (f" ({said})" if said else "")
    ]
    if not champions:
        stopped = [f"stopped: {session.stopping}"] if session.stopping else []
        return [*lines, "the baseline is not measured yet", *stopped]
    metric, first, last = session.experiment.metric, champions[0], champions[-1]
    lines.append(f"baseline  {metric.name} {show(first.scores.values())}")
    lines.append(
        preview(
            noise_of(ledger.attempts(), champions, session.experiment.metric),
            metric.name,
            _judge(session),
        )
    )
    if last.version > 1:
        kept = ledger.attempt(last.attempt_id)
        gain = kept_gain(ledger.attempts(), champions)
        lines.append(
            f"champion  {metric.name} {show(last.scores.values())}  gain {gain:+.6f}  "
            f"{kept.name} {' '.join(kept.title.split())}"
        )
        lines += confirmation_lines(ledger.meta("confirmation"), last.version, metric.name)
        lines.append(f"look:  git log -p {first.commit[:10]}..autoresearch/{session.plan.tag}")
        lines.append(f"take:  git merge autoresearch/{session.plan.tag}")
    else:
        lines.append("no mutation was kept; the baseline stands")
    if spent := _spent(ledger, attempts):
        from ..core.money import prices_version

        lines.append(f"{spent} (an estimate by {prices_version()})")
    lines.append(f"every attempt:  git for-each-ref refs/autoresearch/{session.plan.tag}")
    if session.options.html:
        lines.append(f"report:  {session.options.html}")
    if session.stopping:
        lines.append(f"stopped: {session.stopping}")
    return lines
