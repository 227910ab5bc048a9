"""Columns for pytest-html's report: verdict, score, gain and title beside the test's name."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

AT = 2
"""Place of the columns: after pytest-html's result and test."""

COLUMNS = {
    "verdict": ("verdict", ""),
    "score": ("score", ".6f"),
    "gain": ("gain", "+.6f"),
    "sigma": ("gain_sigma", "+.1f"),
    "title": ("title", ""),
}
"""Name of a column to (figure, number format)."""


def header() -> list[str]:
    """Return the cells of the table's head."""
    return [
        f'<th class="sortable" data-column-type="{name}">{name.title()}</th>' for name in COLUMNS
    ]


def row(facts: Mapping[str, str]) -> list[str]:
    """Return an attempt's cells, empty where a figure is absent.

    Args:
        facts: Its junit properties.
    """
    cells = []
    for name, (figure, form) in COLUMNS.items():
        value = facts.get(figure, "")
        text = format(float(value), form) if form and value else value
        cells.append(f'<td class="col-{name}">{escape(text)}</td>')
    return cells
