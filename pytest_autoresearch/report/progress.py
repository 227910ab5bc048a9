"""The progress picture of the HTML report: a mark for each attempt, a stair for the champion."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup

from .svg import WIDTH, Mark, Scale, Shape, axes, drawing, element, picture

LABEL_CHARS = 30
"""Longest label of a keep; the table has the whole title."""

LABEL_WIDTH, LABEL_MIN = 6, 8
"""Width of a label's character along the axis; fewer characters are no label."""

LABEL_ROOM = 90
"""Free height on the better side, for those labels."""

HEIGHT, TOP, FOOT, LEFT, RIGHT = 486, 26, 40, 70, WIDTH - 24

PLOT_FOOT = HEIGHT - 36 - FOOT

LANE = PLOT_FOOT + FOOT / 2 + 4
"""Height of attempts without a score."""


@dataclass(frozen=True)
class ChampionSpan:
    """The attempts during which one champion stood.

    Attributes:
        start, end: Places in the campaign.
        level: Its score on the baseline's seeds, by paired gains.
    """

    start: float
    end: float
    level: float


def progress(
    marks: Sequence[Mark],
    spans: Sequence[ChampionSpan],
    sigma: float,
    *,
    places: int,
    ticks: Sequence[tuple[int, str]],
    metric: str,
    direction: Literal["min", "max"],
    description: str,
) -> Markup:
    """Draw every attempt as a mark and the champion as a stair with its noise.

    Args:
        marks: Of all attempts, oldest first.
        spans: Of all champions, oldest first.
        sigma: Noise of one paired comparison; the band is 2 sigma to either side.
        places: Length of the campaign.
        ticks: Places with a number on the axis.
        metric: Name of the metric.
        direction: Of the metric.
        description: The picture in words.
    """
    # keeps are labelled on the better side of the stair, where no attempt is drawn
    room = LABEL_ROOM if len(spans) > 1 else 0
    page = (PLOT_FOOT - room, TOP) if direction == "min" else (PLOT_FOOT, TOP + room)
    x = Scale((-0.5, places - 0.5), (LEFT, RIGHT))
    y = Scale(_window(marks, spans, sigma, direction), page)
    better = f"{metric}, {'lower' if direction == 'min' else 'higher'} is better"
    shapes = [
        axes(x, y, "", better, ()),
        *_foot(x, ticks),
        *_bands(spans, sigma, x, y),
        *(_shape(mark, x, y, direction) for mark in marks if mark.shape != "keep"),
    ]
    stair = "".join(
        f"{'M' if i == 0 else 'L'}{x(r.start):.1f} {y(r.level):.1f}H{x(r.end):.1f}"
        for i, r in enumerate(spans)
    )
    if stair:
        shapes.append(element("path", d=stair, class_="champion"))
    keeps = [mark for mark in marks if mark.shape == "keep" and mark.y is not None]
    named = _spread([x(mark.x) for mark in keeps])
    slant = -30 if direction == "min" else 30
    links = [_keep(mark, x, y, slant if i in named else 0) for i, mark in enumerate(keeps)]
    return picture(
        "progress", "Progress of the campaign", description, WIDTH, HEIGHT, drawing(*shapes), *links
    )


def sample(shape: Shape) -> Markup:
    """Draw a shape for the legend."""
    return element("svg", _glyph(shape, 8.0, 8.0), viewBox="0 0 16 16", aria_hidden="true")


def _foot(x: Scale, ticks: Sequence[tuple[int, str]]) -> list[Markup]:
    """Draw the lane of attempts without a score, and the numbers of attempts."""
    return [
        element("path", d=f"M{LEFT} {PLOT_FOOT}H{RIGHT}", class_="rule"),
        element("text", "no score", x=LEFT - 6, y=LANE + 4, class_="tick end"),
        *(
            element("text", text, x=x(place), y=PLOT_FOOT + FOOT + 14, class_="tick middle")
            for place, text in ticks
        ),
    ]


def _bands(spans: Sequence[ChampionSpan], sigma: float, x: Scale, y: Scale) -> list[Markup]:
    bands = []
    for span in spans:
        top, low = sorted((y(span.level - 2 * sigma), y(span.level + 2 * sigma)))
        left, right = x(span.start), x(span.end)
        bands.append(
            element("rect", x=left, y=top, width=right - left, height=low - top, class_="band")
        )
    return bands


def _window(
    marks: Sequence[Mark], spans: Sequence[ChampionSpan], sigma: float, direction: str
) -> tuple[float, float]:
    """Return the range of scores to draw: from the best to a little worse than the baseline.

    Far worse attempts are drawn at the edge; they would compress everything else into one line.
    """
    scores = [mark.y for mark in marks if mark.y is not None] or [0.0, 1.0]
    levels = [span.level for span in spans] or [scores[0]]
    best_high = direction == "max"
    flip = 1 if best_high else -1
    best = max(flip * s for s in (*scores, *levels))
    start = flip * levels[0]
    room = max(best - start, 3 * sigma, 1e-12)
    worst = max(min(flip * s for s in (*scores, *levels)), start - max(room, 4 * sigma))
    low, high = worst - 0.06 * room, best + 0.06 * room
    return (low, high) if best_high else (-high, -low)


def _shape(mark: Mark, x: Scale, y: Scale, direction: str) -> Markup:
    """Draw an attempt that was not kept, with its tooltip; a click leads to its row."""
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


def _keep(mark: Mark, x: Scale, y: Scale, slant: int) -> Markup:
    """Draw a keep as a link; its label, at a slant in degrees unless 0, ends at the mark."""
    assert mark.y is not None
    at, high = x(mark.x), y(mark.y)
    parts = [element("title", mark.tip), _glyph("keep", at, high)]
    room = min(LABEL_CHARS, _room(at))
    if slant:
        label = mark.label if len(mark.label) <= room else mark.label[: room - 1] + "…"
        turn = f"rotate({slant} {at:.0f} {high:.0f})"
        aside = {"x": at - 10, "y": high + 4, "transform": turn}
        parts.append(element("text", label, class_="label end", **aside))
    return element("a", *parts, href=f"#s{mark.attempt}", aria_label=mark.tip)


def _room(at: float) -> int:
    """Return how many characters of a label fit between the axis and a mark at `at`."""
    return int((at - 10 - LEFT) / LABEL_WIDTH)


def _spread(places: Sequence[float], apart: float = 26.0) -> set[int]:
    """Return the keeps whose labels fit and do not overlap, the latest first."""
    chosen: list[int] = []
    for i in reversed(range(len(places))):
        if _room(places[i]) >= LABEL_MIN and (
            not chosen or places[chosen[-1]] - places[i] >= apart
        ):
            chosen.append(i)
    return set(chosen)
