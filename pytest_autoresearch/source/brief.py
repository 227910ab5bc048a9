"""The front matter of program.md: ranges of knobs, written by the researcher."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .search_space import Knob, ranged


class FrontMatterError(ValueError):
    """The front matter cannot be read; one line with the remedy."""


def knobs(program: str) -> Mapping[str, Any]:
    """Return the ``knobs:`` mapping of a program's front matter, or an empty one.

    Raises:
        FrontMatterError: It is not YAML, not a mapping, or a range has another form.
    """
    if not program.startswith("---\n"):
        return {}
    head, closed, _ = program[4:].partition("\n---")
    if not closed:
        raise FrontMatterError("program.md: the front matter is not closed; end it with ---")
    import yaml

    try:
        data = yaml.safe_load(head) or {}
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 2}" if where else ""
        raise FrontMatterError(f"program.md{line}: the front matter is not YAML") from None
    found = data.get("knobs", {}) if isinstance(data, dict) else None
    if not isinstance(found, dict):
        raise FrontMatterError("program.md: knobs must map names to [choices] or {low, high}")
    for name, override in found.items():
        if override != "fixed":
            try:
                ranged(Knob(name, 0, (0, 0, 0, 0)), override)
            except ValueError as error:
                raise FrontMatterError(str(error)) from None
    return found
