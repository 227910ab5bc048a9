"""Read the front matter of program.md, where a researcher declares search ranges."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from .search_space import Hyperparameter, ranged


class FrontMatterError(ValueError):
    """The front matter is invalid; the message is one line with the remedy."""


def declared_space(program: str) -> Mapping[str, Any]:
    """Return the ``search_space:`` mapping of a program's front matter, or an empty one.

    Raises:
        FrontMatterError: It is not YAML, not a mapping, or a range has another form.
    """
    if not program.startswith("---\n"):
        return {}
    head, closed, _ = program[4:].partition("\n---")
    if not closed:
        raise FrontMatterError("program.md: the front matter is not closed; end it with ---")
    try:
        data = yaml.safe_load(head) or {}
    except yaml.YAMLError as error:
        where = getattr(error, "problem_mark", None)
        line = f" line {where.line + 2}" if where else ""
        raise FrontMatterError(f"program.md{line}: the front matter is not YAML") from None
    if isinstance(data, dict) and "knobs" in data:
        raise FrontMatterError("program.md: knobs is named search_space now; rename it")
    space = data.get("search_space", {}) if isinstance(data, dict) else None
    if not isinstance(space, dict):
        raise FrontMatterError(
            "program.md: search_space must map names to [choices] or {low, high}"
        )
    for name, override in space.items():
        if override != "fixed":
            try:
                ranged(Hyperparameter(name, 0, (0, 0, 0, 0)), override)
            except ValueError as error:
                raise FrontMatterError(str(error)) from None
    return space
