"""The HTML report: one self-contained file, rendered from the ledger's records.

Titles, hypotheses, code and logs come from candidates and models: the template escapes them, the
page's policy forbids every request and every script but ours, and characters that reorder or hide
text are replaced.
"""

from __future__ import annotations

import base64
import hashlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from ..core.files import write_atomic
from ..core.records import Attempt, Champion
from ..core.text import harmless
from ..judge.families import by_family
from ..judge.verdicts import show
from ..ledger.store import Ledger
from . import compare
from .junit import versions
from .views import Report

RELOAD_S = 15
"""Seconds between two reloads of a running campaign's page."""


def gather(ledger: Ledger, status: Sequence[Mapping[str, Any]] = ()) -> dict[str, Any]:
    """Return the facts of a campaign that `render` shows beside its attempts.

    Args:
        ledger: Of the campaign.
        status: Of the workers, from `read_status`.
    """
    return {
        "tag": ledger.path.parent.name,
        "campaign": ledger.meta("campaign") or {},
        "confirmation": ledger.confirmation(),
        "transfers": ledger.transfers(),
        "data_sha256": ledger.meta("data_sha256") or "",
        "sessions": ledger.sessions(),
        "status": list(status),
        "versions": versions(),
        "at": time.time(),
    }


def write(
    path: Path,
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    facts: Mapping[str, Any],
    *,
    live: bool,
) -> None:
    """Write the report in one step, see `render`.

    Raises:
        OSError: It cannot be written; the ledger still holds everything.
    """
    write_atomic(path, (part.encode() for part in render(attempts, champions, facts, live=live)))


def render(
    attempts: Sequence[Attempt],
    champions: Sequence[Champion],
    facts: Mapping[str, Any],
    *,
    live: bool,
) -> Iterator[str]:
    """Yield the page in parts, since that of 10,000 attempts takes 100 MB as a whole.

    Args:
        attempts: Every attempt, oldest first.
        champions: Every champion, the baseline first.
        facts: From `gather`; every key may be absent.
        live: The campaign runs: the page reloads itself and leaves out holdout scores.
    """
    style, script = _asset("report.css"), _asset("report.js")
    page = (
        _environment()
        .get_template("report.html.j2")
        .stream(
            report=Report(attempts, champions, facts, live),
            compare=compare,
            by_family=by_family,
            live=live,
            reload_s=RELOAD_S,
            style=Markup(style),
            script=Markup(script),
            policy=(
                f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
                "base-uri 'none'; form-action 'none'"
            ),
        )
    )
    page.enable_buffering(500)
    return (harmless(part, "\n\t") for part in page)


@lru_cache(maxsize=1)
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader(__package__ or "", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {
        "score": lambda v: "" if v is None else f"{v:.6f}" if abs(v) < 1e6 else f"{v:.6g}",
        "gain": lambda v: "" if v is None else f"{v:+.6f}" if abs(v) < 1e6 else f"{v:+.6g}",
        "mean": lambda champion: show(champion.scores.values()),
        "sigma": lambda v: "" if v is None else f"{v:+.1f}",
        "span": span,
        "moment": moment,
        "options": lambda config: json.dumps(
            {name: value for name, value in config.items() if value not in (None, "", False)}
        ),
        "money": lambda v: "" if v is None else f"${v:,.2f}",
    }
    return environment


@lru_cache(maxsize=4)
def _asset(name: str) -> str:
    return (Path(__file__).parent / "templates" / name).read_text(encoding="utf-8")


def _hash(text: str) -> str:
    digest = hashlib.sha256(text.encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def span(seconds: float | None) -> str:
    """Return a duration as ``48 s``, ``12 min`` or ``7.5 h``."""
    if seconds is None:
        return ""
    if seconds < 90:
        return f"{seconds:.0f} s" if seconds >= 10 else f"{seconds:.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"


def moment(at: float | None) -> str:
    """Return a Unix time as ``2026-01-31 23:59 UTC``."""
    return "" if at is None else time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(at))
