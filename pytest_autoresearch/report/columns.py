"""Our columns in pytest-html's report: verdict, score, gain and title beside the test's name."""

from __future__ import annotations

from collections.abc import Mapping
from html import escape

AT = 2
"""Behind pytest-html's result and test."""

NAMES = ("verdict", "score", "gain", "sigma", "title")


def header() -> list[str]:
    """Return the cells of the table's head."""
    return [f'<th class="sortable" data-column-type="{name}">{name.title()}</th>' for name in NAMES]


def row(facts: Mapping[str, str]) -> list[str]:
    """Return an attempt's cells; empty ones for what has no verdict.

    Args:
        facts: Its junit properties.
    """
    score = facts.get("score", "")
    values = {
        "verdict": facts.get("verdict", ""),
        "score": f"{float(score):.6f}" if score else "",
        "gain": f"{float(facts['gain']):+.6f}" if "gain" in facts else "",
        "sigma": f"{float(facts['gain_sigma']):+.1f}" if "gain_sigma" in facts else "",
        "title": facts.get("title", ""),
    }
    return [f'<td class="col-{name}">{escape(values[name])}</td>' for name in NAMES]
