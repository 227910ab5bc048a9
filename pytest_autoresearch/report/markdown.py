"""A session's summary in Markdown, for the summary page of a CI job."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..core.experiment import Metric
from ..core.records import Attempt, Champion, Confirmation
from ..core.text import harmless
from ..judge.confirmation import kept_gain, percent
from ..judge.verdicts import show
from .terminal import tally

BARS = "▁▂▃▄▅▆▇█"


def render(
    tag: str,
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    metric: Metric,
    confirmation: Confirmation | None,
) -> str:
    """Return the summary: the gain, the progress as a row of blocks, and every keep.

    Args:
        tag: Campaign.
        attempts: Of the whole campaign.
        champions: Of the whole campaign.
        metric: Of the campaign.
        confirmation: The last one, or None.
    """
    tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
    lines = [f"## autoresearch: {tag}", ""]
    if not champions:
        return "\n".join([*lines, "The baseline is not measured yet.", ""])
    first, last = champions[0], champions[-1]
    lines.append(f"baseline {metric.name} **{show(first.scores.values())}**  ")
    if last.version > 1:
        kept = kept_gain(attempts, champions)
        lines.append(f"gain when kept **{kept:+.6f}** ({percent(kept, champions)})  ")
    if confirmation and confirmation.champion == last.version:
        if gain := confirmation.confirmed:
            lines.append(f"{gain.standing} gain **{gain}** on {gain.n} fresh seeds  ")
        if confirmation.holdout:
            lines.append(f"holdout gain **{confirmation.holdout}**  ")
    elif last.version > 1:
        lines.append("not confirmed on fresh seeds yet  ")
    lines += [f"{len(tried)} attempts: {tally(tried)}", "", f"`{sparkline(tried, metric)}`", ""]
    keeps = [attempt for attempt in tried if attempt.verdict == "keep"]
    if keeps:
        lines += ["| kept | gain | σ | seeds | title |", "|---|---|---|---|---|"]
        lines += [
            f"| {keep.name} | {keep.gain or 0:+.6f} | {keep.gain_sigma or 0:.1f} | {keep.n} "
            f"| {cell(keep.title)} |"
            for keep in keeps
        ]
        lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Escape text for one cell of a Markdown table."""
    flat = harmless(" ".join(text.split())).replace("<", " ").replace(">", " ")
    return re.sub(r"[\\`|\[\]*_]", r"\\\g<0>", flat)


def sparkline(attempts: Sequence[Attempt], metric: Metric, width: int = 100) -> str:
    """Draw the latest attempts as blocks: taller is better, ``·`` has no score."""
    shown = attempts[-width:]
    scores = [attempt.score for attempt in shown if attempt.score is not None]
    if not scores:
        return "·" * len(shown)
    worst = max(scores, key=lambda score: metric.gain(scores[0], score))
    best = max(scores, key=lambda score: metric.gain(score, scores[0]))
    span = abs(best - worst) or 1.0
    return "".join(
        "·"
        if attempt.score is None
        else BARS[round(abs(attempt.score - worst) / span * (len(BARS) - 1))]
        for attempt in shown
    )
