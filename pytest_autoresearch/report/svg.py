"""Pictures of the HTML report: inline SVG, coloured by the page's style sheet.

Every picture has a title and a description, and shows verdicts by shape as well as by colour.
Candidate text enters through `element`, which escapes it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from markupsafe import Markup, escape

from ..core.records import Gain

WIDTH = 1100
"""Of pictures as wide as the page."""

Shape = Literal["keep", "dot", "cross", "square", "baseline"]


@dataclass(frozen=True)
class Mark:
    """One attempt in a picture.

    Attributes:
        attempt: Ledger row of the attempt that it links to.
        x: Place in the campaign, from 0.
        y: Height in the metric's unit; None without a score.
        shape: Of the mark.
        label: Text beside a keep.
        tip: Tooltip.
    """

    attempt: int
    x: int
    y: float | None
    shape: Shape
    label: str
    tip: str


def element(tag: str, *children: object, **attributes: object) -> Markup:
    """Return one element; text is escaped, `Markup` is not, ``_`` in names becomes ``-``."""
    shown = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(_number(value))}"'
        for name, value in attributes.items()
        if value is not None
    )
    inside = "".join(str(escape(child)) for child in children)
    return Markup(f"<{tag}{shown}>{inside}</{tag}>" if inside else f"<{tag}{shown}/>")


def _number(value: object) -> object:
    return f"{value:.1f}".removesuffix(".0") if isinstance(value, float) else value


def picture(
    name: str, title: str, description: str, width: int, height: int, *parts: Markup
) -> Markup:
    """Return a picture; links among `parts` stay reachable by the keyboard."""
    return element(
        "svg",
        element("title", title, id=f"{name}-title"),
        element("desc", description, id=f"{name}-desc"),
        *parts,
        viewBox=f"0 0 {width} {height}",
        role="group",
        aria_labelledby=f"{name}-title {name}-desc",
        class_=f"picture {name}",
    )


def drawing(*parts: Markup) -> Markup:
    """Group shapes that screen readers skip; the table holds the same facts."""
    return element("g", *parts, aria_hidden="true")


class Scale:
    """A linear map from data to coordinates of a picture."""

    def __init__(self, data: tuple[float, float], page: tuple[float, float]) -> None:
        low, high = data
        if not high > low:
            pad = abs(low) * 1e-6 or 1.0
            low, high = low - pad, high + pad
        self.low, self.high, self.page = low, high, page

    def __call__(self, value: float) -> float:
        """Return the coordinate of `value`, clamped to the range."""
        share = (min(max(value, self.low), self.high) - self.low) / (self.high - self.low)
        return self.page[0] + share * (self.page[1] - self.page[0])

    def holds(self, value: float) -> bool:
        """Whether `value` is in the range."""
        return self.low <= value <= self.high

    def ticks(self, about: int = 5) -> list[float]:
        """Return round numbers in the range, at steps of 1, 2 or 5 times a power of ten."""
        rough = (self.high - self.low) / about
        power = 10.0 ** math.floor(math.log10(rough))
        step = next(f * power for f in (1, 2, 5, 10) if f * power >= rough)
        first = math.ceil(self.low / step)
        return [i * step for i in range(first, math.floor(self.high / step) + 1)]


def _tick_text(value: float, ticks: Sequence[float]) -> str:
    step = ticks[1] - ticks[0] if len(ticks) > 1 else abs(value) or 1.0
    if max(abs(step), abs(value)) >= 1e6:
        return f"{value:.4g}"
    digits = max(0, min(8, -math.floor(math.log10(step) + 1e-9)))
    return f"{value:.{digits}f}"


def axes(
    x: Scale, y: Scale, x_name: str, y_name: str, x_ticks: Iterable[float] | None = None
) -> Markup:
    """Draw a grid with numbers."""
    left, right, foot = x.page[0], x.page[1], max(y.page)
    parts = []
    levels = y.ticks(7)
    for level in levels:
        at = y(level)
        parts.append(element("path", d=f"M{left:.0f} {at:.1f}H{right:.0f}", class_="grid"))
        text = _tick_text(level, levels)
        parts.append(element("text", text, x=left - 6, y=at + 4, class_="tick end"))
    places = list(x.ticks(8) if x_ticks is None else x_ticks)
    for place in places:
        text = _tick_text(place, places)
        parts.append(element("text", text, x=x(place), y=foot + 16, class_="tick middle"))
    parts.append(element("text", x_name, x=right, y=foot + 32, class_="tick end"))
    parts.append(element("text", y_name, x=left - 6, y=min(y.page) - 10, class_="tick"))
    return Markup("").join(parts)


# ---------------------------------------------------------------------- smaller pictures


def steps(
    name: str, points: Sequence[tuple[float, float]], *, x_name: str, y_name: str, description: str
) -> Markup:
    """Draw the champion's gain (y) over the cost (x) as a stair; points are in order."""
    width, height = 540, 240
    x = Scale((0.0, max((p[0] for p in points), default=1.0)), (70, width - 20))
    gains = [p[1] for p in points] or [0.0]
    y = Scale((min(0.0, *gains), max(0.0, *gains)), (height - 50, 34))
    path = ""
    for i, (spent, gain) in enumerate(points):
        path += f"M{x(spent):.1f} {y(gain):.1f}" if i == 0 else f"H{x(spent):.1f}V{y(gain):.1f}"
    shapes = [axes(x, y, x_name, y_name, x.ticks(6))]
    if path:
        shapes.append(element("path", d=path, class_="champion"))
    kept = points[1:-1]
    shapes += [element("circle", cx=x(spent), cy=y(gain), r=4, class_="k") for spent, gain in kept]
    return picture(name, f"{y_name} by {x_name}", description, width, height, drawing(*shapes))


def intervals(gains: Mapping[str, Gain], *, unit: str, description: str) -> Markup:
    """Draw named gains (gain, low, high) on one line each, and zero."""
    width, height = 620, 34 * len(gains) + 48
    bounds = [0.0, *(end for g in gains.values() for end in (g.low, g.high, g.gain))]
    pad = 0.06 * (max(bounds) - min(bounds))
    x = Scale((min(bounds) - pad, max(bounds) + pad), (150, width - 20))
    foot = height - 36
    ticks = x.ticks(5)
    shapes = [
        element("text", _tick_text(t, ticks), x=x(t), y=foot + 16, class_="tick middle")
        for t in ticks
    ]
    shapes.append(element("path", d=f"M{x(0):.1f} 6V{foot}", class_="zero"))
    shapes.append(element("text", f"gain, {unit}", x=width - 20, y=height - 4, class_="tick end"))
    for i, (name, gain) in enumerate(gains.items()):
        at = 34 * i + 22
        shapes.append(element("text", name, x=142, y=at + 4, class_="name end"))
        if gain.high > gain.low:
            whisker = f"M{x(gain.low):.1f} {at - 6}v12m0-6H{x(gain.high):.1f}m0-6v12"
            shapes.append(element("path", d=whisker, class_="whisker"))
        shapes.append(element("circle", cx=x(gain.gain), cy=at, r=5, class_="k"))
    return picture("intervals", "Gains", description, width, height, drawing(*shapes))


def tree(
    rows: Sequence[tuple[str, int, Sequence[Mark]]], places: int, *, description: str
) -> Markup:
    """Draw which attempt was derived from which: a line per parent with its children.

    Args:
        rows: Label, place and children of each parent.
        places: Length of the campaign.
        description: The picture in words.
    """
    width, height = WIDTH, 30 * len(rows) + 30
    x = Scale((0, max(1, places - 1)), (20, width - 20))
    level = {label: 30 * i + 26 for i, (label, _, _) in enumerate(rows)}
    own = {place: level[label] for label, place, _ in rows}
    shapes, links = [], []
    for label, place, children in rows:
        at = level[label]
        last = max((mark.x for mark in children), default=place)
        shapes.append(element("path", d=f"M{x(place):.1f} {at}H{x(last):.1f}", class_="branch"))
        leaves = [mark for mark in children if mark.shape != "keep"]
        for failed, class_ in ((False, "leaf"), (True, "leaf none")):
            group = [mark for mark in leaves if (mark.shape in ("cross", "square")) == failed]
            dots = "".join(f"M{x(mark.x):.1f} {at}h0" for mark in group)
            if dots:
                shapes.append(element("path", d=dots, class_=class_))
        for mark in children:
            foot = own.get(mark.x, at)
            if foot != at:
                shapes.append(element("path", d=f"M{x(mark.x):.1f} {at}V{foot}", class_="branch"))
            if mark.shape != "keep":
                continue
            circle = element("circle", cx=x(mark.x), cy=foot, r=6, class_="k")
            tip = element("title", mark.tip)
            links.append(element("a", tip, circle, href=f"#s{mark.attempt}", aria_label=mark.tip))
        late = x(place) > width / 2
        aside = {"x": x(place) + (-12 if late else 8), "y": at + 4 if late else at - 10}
        shapes.append(element("text", label[:90], class_="name end" if late else "name", **aside))
    return picture("tree", "Tree of parents", description, width, height, drawing(*shapes), *links)


# ---------------------------------------------------------------------- loss curves

CURVE_W, CURVE_H, CURVE_POINTS = 320, 120, 40

LOSS_MAX = 1e9
"""Larger losses are left out: the training has diverged."""


def curve_path(
    curve: Sequence[tuple[float, float]], low: float, high: float, points: int = CURVE_POINTS
) -> str:
    """Return the path of a loss curve, averaged over equal shares of the budget.

    Args:
        curve: Pairs (fraction of the budget, loss).
        low: Loss at the foot, the same for every curve of a report.
        high: Loss at the top.
        points: Number of averages, at most.
    """
    sums: dict[int, tuple[float, int]] = {}
    for fraction, loss in curve:
        if math.isfinite(fraction) and abs(loss) < LOSS_MAX:
            share = min(points - 1, int(min(1.0, max(0.0, fraction)) * points))
            total, n = sums.get(share, (0.0, 0))
            sums[share] = (total + loss, n + 1)
    y = Scale((low, high), (CURVE_H - 4, 4))
    means = {share: total / n for share, (total, n) in sorted(sums.items())}
    inside = [share for share, mean in means.items() if mean <= high]
    path, last = "", (0, 0)
    for share, mean in means.items():
        if inside and share < inside[0]:
            continue  # the steep beginning would be a flat line along the top
        here = (round((share + 0.5) / points * CURVE_W), round(y(mean)))
        if not path:
            path = f"M{here[0]} {here[1]}l"
        else:
            path += f"{here[0] - last[0]} {here[1] - last[1]} "
        last = here
    return path.strip().removesuffix("l")


def curve_axes(low: float, high: float) -> Markup:
    """Draw the frame and numbers that all loss curves of a report share."""
    frame = element("path", d=f"M0 4V{CURVE_H}H{CURVE_W}M0 4h-4M0 {CURVE_H - 4}h-4", class_="axis")
    words = ((4, f"{high:.3g}"), (CURVE_H - 4, f"{low:.3g}"))
    texts = [element("text", word, x=-7, y=at + 4, class_="tick end") for at, word in words]
    return Markup("").join([frame, *texts])


def loss_range(curves: Iterable[Sequence[tuple[float, float]]]) -> tuple[float, float]:
    """Return the scale of all curves (low, high), without the steep beginning."""
    later = sorted(
        loss
        for curve in curves
        for fraction, loss in curve[:: max(1, len(curve) // CURVE_POINTS)]
        if fraction >= 0.1 and abs(loss) < LOSS_MAX
    )
    if not later:
        return 0.0, 1.0
    return later[len(later) // 200], later[-1 - len(later) // 50]
