"""The progress picture of the HTML report: every trial a mark, the champion a stair."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from .svg import WIDTH, Mark, Scale, Shape, axes, drawing, element, picture

LABEL_CHARS = 30
"""Longest label of a keep in the picture; the rest is in the table."""

LABEL_ROOM = 90
"""Kept free on the better side for those labels."""

HEIGHT, FOOT, LEFT, RIGHT = 500, 40, 70, WIDTH - 24

PLOT_FOOT = HEIGHT - 36 - FOOT

LANE = PLOT_FOOT + FOOT / 2 + 4
"""Where trials without a score stand."""


@dataclass(frozen=True)
class ChampionSpan:
    """How long a champion stood.

    Attributes:
        start, end: Places in the campaign.
        level: Its mean score.
    """

    start: float
    end: float
    level: float


def progress(
    marks: Sequence[Mark],
    reigns: Sequence[ChampionSpan],
    sigma: float,
    *,
    places: int,
    ticks: Sequence[tuple[int, str]],
    metric: str,
    direction: Literal["min", "max"],
    description: str,
) -> Markup:
    """Return autoresearch's picture: every trial a dot, the champion a stair with its noise.

    Args:
        marks: Every trial, oldest first.
        reigns: Every champion, oldest first.
        sigma: Noise of one paired comparison; the band is two of it to either side.
        places: Length of the campaign.
        ticks: Places that are named on the axis.
        metric: Its name.
        direction: Which way is better.
        description: The same in words.
    """
    # labels of keeps are written on the better side of the stair, where no trial stands
    room = LABEL_ROOM if len(reigns) > 1 else 0
    page = (PLOT_FOOT - room, 40) if direction == "min" else (PLOT_FOOT, 40 + room)
    x = Scale((-0.5, places - 0.5), (LEFT, RIGHT))
    y = Scale(_window(marks, reigns, sigma, direction), page)
    better = f"{metric}, {'lower' if direction == 'min' else 'higher'} is better"
    shapes = [
        axes(x, y, "", better, ()),
        *_foot(x, ticks),
        *_bands(reigns, sigma, x, y),
        *(_shape(mark, x, y, direction) for mark in marks if mark.shape != "keep"),
    ]
    stair = "".join(
        f"{'M' if i == 0 else 'L'}{x(r.start):.1f} {y(r.level):.1f}H{x(r.end):.1f}"
        for i, r in enumerate(reigns)
    )
    if stair:
        shapes.append(element("path", d=stair, class_="champion"))
    keeps = [mark for mark in marks if mark.shape == "keep" and mark.y is not None]
    named = _spread([x(mark.x) for mark in keeps])
    slant = -30 if direction == "min" else 30
    links = [_keep(mark, x, y, slant if i in named else None) for i, mark in enumerate(keeps)]
    return picture(
        "progress", "Progress of the campaign", description, WIDTH, HEIGHT, drawing(*shapes), *links
    )


def sample(shape: Shape) -> Markup:
    """Return a shape for the legend."""
    return element("svg", _glyph(shape, 8.0, 8.0), viewBox="0 0 16 16", aria_hidden="true")


def _foot(x: Scale, ticks: Sequence[tuple[int, str]]) -> list[Markup]:
    """The line that stands for no score, and the numbers of trials."""
    return [
        element("path", d=f"M{LEFT} {PLOT_FOOT}H{RIGHT}", class_="rule"),
        element("text", "no score", x=LEFT - 6, y=LANE + 4, class_="tick end"),
        *(
            element("text", text, x=x(place), y=PLOT_FOOT + FOOT + 14, class_="tick middle")
            for place, text in ticks
        ),
    ]


def _bands(reigns: Sequence[ChampionSpan], sigma: float, x: Scale, y: Scale) -> list[Markup]:
    bands = []
    for reign in reigns:
        top, low = sorted((y(reign.level - 2 * sigma), y(reign.level + 2 * sigma)))
        left, right = x(reign.start), x(reign.end)
        bands.append(
            element("rect", x=left, y=top, width=right - left, height=low - top, class_="band")
        )
    return bands


def _window(
    marks: Sequence[Mark], reigns: Sequence[ChampionSpan], sigma: float, direction: str
) -> tuple[float, float]:
    """From a little better than the best to a little worse than the baseline.

    A ruined trial would otherwise squeeze all that matters into one line; it is drawn at the edge.
    """
    scores = [mark.y for mark in marks if mark.y is not None] or [0.0, 1.0]
    levels = [reign.level for reign in reigns] or [scores[0]]
    best_high = direction == "max"
    flip = 1 if best_high else -1
    best = max(flip * s for s in (*scores, *levels))
    start = flip * levels[0]
    room = max(best - start, 3 * sigma, 1e-12)
    worst = max(min(flip * s for s in (*scores, *levels)), start - max(room, 4 * sigma))
    low, high = worst - 0.06 * room, best + 0.06 * room
    return (low, high) if best_high else (-high, -low)


def _shape(mark: Mark, x: Scale, y: Scale, direction: str) -> Markup:
    """A trial that was not kept, its tip under the pointer, its row one click away."""
    tip, at = element("title", mark.tip), x(mark.x)
    if mark.y is not None and not y.holds(mark.y):
        tall = -6 if direction == "min" else 6
        arrow = f"M{at - 4:.1f} {y(mark.y):.1f}h8l-4 {tall}z"
        return element("path", tip, d=arrow, class_="o", data_s=mark.attempt)
    return _glyph(mark.shape, at, LANE if mark.y is None else y(mark.y), tip, data_s=mark.attempt)


def _glyph(shape: Shape, x: float, y: float, *inside: Markup, **attributes: object) -> Markup:
    if shape in ("keep", "dot"):
        size, kind = (6, "k") if shape == "keep" else (3, "d")
        return element("circle", *inside, cx=x, cy=y, r=size, class_=kind, **attributes)
    path, kind = {
        "baseline": (f"M{x - 4:.1f} {y:.1f}l4-4 4 4-4 4z", "b"),
        "square": (f"M{x - 3:.1f} {y - 3:.1f}h6v6h-6z", "s"),
        "cross": (f"M{x - 3.5:.1f} {y - 3.5:.1f}l7 7m0-7-7 7", "x"),
    }[shape]
    return element("path", *inside, d=path, class_=kind, **attributes)


def _keep(mark: Mark, x: Scale, y: Scale, slant: int | None) -> Markup:
    """A kept trial as a link; its label ends at it, or begins there near the left edge."""
    assert mark.y is not None
    at, high = x(mark.x), y(mark.y)
    parts = [element("title", mark.tip), _glyph("keep", at, high)]
    if slant is not None:
        label, left = mark.label, at < LEFT + 1.8 * LABEL_ROOM
        if len(label) > LABEL_CHARS:
            label = label[: LABEL_CHARS - 1] + "…"
        turn = f"rotate({slant} {at:.0f} {high:.0f})"
        aside = {"x": at + (10 if left else -10), "y": high + 4, "transform": turn}
        parts.append(element("text", label, class_="label" if left else "label end", **aside))
    return element("a", *parts, href=f"#s{mark.attempt}", aria_label=mark.tip)


def _spread(places: Sequence[float], apart: float = 26.0) -> set[int]:
    """Which labels can be written without one over the other; the latest keep always."""
    chosen: list[int] = []
    for i in reversed(range(len(places))):
        if not chosen or places[chosen[-1]] - places[i] >= apart:
            chosen.append(i)
    return set(chosen)
