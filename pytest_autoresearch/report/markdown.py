"""A night in Markdown, for a CI job's summary page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ..core.experiment import Metric
from ..core.outcome import LETTERS
from ..core.records import Champion, SlotRecord
from ..judge.verdicts import show

BARS = "▁▂▃▄▅▆▇█"


def render(
    tag: str,
    slots: Sequence[SlotRecord],
    champions: Sequence[Champion],
    metric: Metric,
    closing: Mapping[str, Any] | None,
) -> str:
    """Return the summary: what was gained, the progress as a row of blocks, and every keep.

    Args:
        tag: Campaign.
        slots: Of the whole campaign.
        champions: Of the whole campaign.
        metric: Of the campaign.
        closing: The ledger's fact ``closing``, or None.
    """
    tried = [slot for slot in slots if slot.kind != "baseline"]
    lines = [f"## autoresearch: {tag}", ""]
    if not champions:
        return "\n".join([*lines, "The baseline is not measured yet.", ""])
    first, last = champions[0], champions[-1]
    lines.append(f"baseline {metric.name} **{show(first.scores.values())}**  ")
    if last.version > 1:
        lines.append(f"champion {metric.name} **{show(last.scores.values())}**  ")
    if closing and closing.get("champion") == last.version:
        for name in ("confirmed", "holdout"):
            if gain := closing.get(name):
                lines.append(
                    f"{name} gain **{gain['gain']:+.6f}** "
                    f"[{gain['low']:+.6f}, {gain['high']:+.6f}]  "
                )
    elif last.version > 1:
        lines.append("not confirmed on fresh seeds yet  ")
    counts = Counter(slot.verdict or slot.state for slot in tried)
    tally = ", ".join(
        f"{n} {LETTERS[verdict][0] if verdict in LETTERS else verdict}"
        for verdict, n in counts.most_common()
    )
    lines += [f"{len(tried)} slots: {tally}", "", f"`{sparkline(tried, metric)}`", ""]
    kept = [slot for slot in tried if slot.verdict == "keep"]
    if kept:
        lines += ["| kept | gain | σ | seeds | what |", "|---|---|---|---|---|"]
        lines += [
            f"| {slot.name} | {slot.gain or 0:+.6f} | {slot.gain_sigma or 0:+.1f} | {slot.n} "
            f"| {cell(slot.title)} |"
            for slot in kept
        ]
        lines.append("")
    return "\n".join(lines)


def cell(text: str) -> str:
    """Return text that stays in its cell or line, as text."""
    flat = " ".join(text.split())
    for character in "\\`|<>[]*_":
        flat = flat.replace(character, f"\\{character}" if character not in "<>" else " ")
    return flat


def sparkline(slots: Sequence[SlotRecord], metric: Metric, width: int = 100) -> str:
    """Return the latest slots as blocks, taller is better; ``·`` has no score."""
    shown = slots[-width:]
    scores = [slot.score for slot in shown if slot.score is not None]
    if not scores:
        return "·" * len(shown)
    worst = max(scores, key=lambda score: metric.gain(scores[0], score))
    best = max(scores, key=lambda score: metric.gain(score, scores[0]))
    span = abs(best - worst) or 1.0
    return "".join(
        "·" if slot.score is None else BARS[round(abs(slot.score - worst) / span * (len(BARS) - 1))]
        for slot in shown
    )


def append(path: Path, text: str) -> None:
    """Append to a file that other steps write to as well.

    Raises:
        OSError: It cannot be written.
    """
    with path.open("a", encoding="utf-8") as file:
        file.write(text + "\n")
