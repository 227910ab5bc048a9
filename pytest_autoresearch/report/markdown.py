"""A night in Markdown, for a CI job's summary page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.experiment import Metric
from ..core.outcome import LETTERS
from ..core.records import Attempt, Champion
from ..judge.verdicts import show

BARS = "▁▂▃▄▅▆▇█"


def render(
    tag: str,
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    metric: Metric,
    confirmation: Mapping[str, Any] | None,
) -> str:
    """Return the summary: what was gained, the progress as a row of blocks, and every keep.

    Args:
        tag: Campaign.
        attempts: Of the whole campaign.
        champions: Of the whole campaign.
        metric: Of the campaign.
        confirmation: The ledger's fact ``closing``, or None.
    """
    tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
    lines = [f"## autoresearch: {tag}", ""]
    if not champions:
        return "\n".join([*lines, "The baseline is not measured yet.", ""])
    first, last = champions[0], champions[-1]
    lines.append(f"baseline {metric.name} **{show(first.scores.values())}**  ")
    if last.version > 1:
        lines.append(f"champion {metric.name} **{show(last.scores.values())}**  ")
    if confirmation and confirmation.get("champion") == last.version:
        for name in ("confirmed", "holdout"):
            if gain := confirmation.get(name):
                lines.append(
                    f"{name} gain **{gain['gain']:+.6f}** "
                    f"[{gain['low']:+.6f}, {gain['high']:+.6f}]  "
                )
    elif last.version > 1:
        lines.append("not confirmed on fresh seeds yet  ")
    counts = Counter(attempt.verdict or attempt.state for attempt in tried)
    tally = ", ".join(
        f"{n} {LETTERS[verdict][0] if verdict in LETTERS else verdict}"
        for verdict, n in counts.most_common()
    )
    lines += [f"{len(tried)} attempts: {tally}", "", f"`{sparkline(tried, metric)}`", ""]
    kept = [attempt for attempt in tried if attempt.verdict == "keep"]
    if kept:
        lines += ["| kept | gain | σ | seeds | what |", "|---|---|---|---|---|"]
        lines += [
            f"| {attempt.name} | {attempt.gain or 0:+.6f} | {attempt.gain_sigma or 0:+.1f} | {attempt.n} "
            f"| {cell(attempt.title)} |"
            for attempt in kept
        ]
        lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return text that stays in its cell or line, as text."""
    flat = " ".join(text.split())
    for character in "\\`|<>[]*_":
        flat = flat.replace(character, f"\\{character}" if character not in "<>" else " ")
    return flat


def sparkline(attempts: Sequence[Attempt], metric: Metric, width: int = 100) -> str:
    """Return the latest attempts as blocks, taller is better; ``·`` has no score."""
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


def append(path: Path, text: str) -> None:
    """Append to a file that other steps write to as well.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
