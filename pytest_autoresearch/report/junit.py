"""The junit log of a campaign, written from the ledger.

pytest's own writer loses everything on SIGKILL, so the file named by ``--junitxml`` is rewritten
after each attempt, and once more after pytest has written its own. Figures are properties, the key
ones also in messages, since several viewers show no properties; edits and the log's end are in
``system-out``.
"""

from __future__ import annotations

import contextlib
import platform
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.experiment import Metric
from ..core.figures import figures
from ..core.files import write_atomic
from ..core.records import Attempt, Champion, Confirmation
from ..core.text import harmless
from ..judge.confirmation import kept_gain
from ..source.blocks import format_blocks

if TYPE_CHECKING:
    from ..ledger.store import Ledger

LOG_CHARACTERS = 8_000
"""Of the end of a run's output, in ``system-out``."""


def clean(text: str) -> str:
    """Replace what XML 1.0 cannot hold and what reorders or hides text."""
    return harmless(text, "\n\t")


# ---------------------------------------------------------------------- an attempt's figures


def properties(
    attempt: Attempt, metric: Metric, names: Mapping[int, str] | None = None
) -> list[tuple[str, str]]:
    """Return the figures of an attempt as junit properties.

    Args:
        attempt: The attempt.
        metric: Of the experiment; the score stands under its name, too.
        names: Ledger row to attempt name, see `figures`.
    """
    values = {"metric": metric.name, **figures(attempt, names)}
    if attempt.score is not None:
        values.setdefault(metric.name, attempt.score)  # a metric may share a figure's name: steps
    return [
        (clean(name), clean(repr(value) if isinstance(value, float) else str(value)))
        for name, value in values.items()
    ]


def headline(attempt: Attempt, metric: Metric) -> str:
    """Return the key figures in one line, for viewers that do not show properties."""
    score = "" if attempt.score is None else f" {metric.name} {attempt.score:.6f}"
    facts = []
    if attempt.gain is not None and attempt.gain_sigma is not None:
        facts.append(f"gain {attempt.gain:+.6f}, {abs(attempt.gain_sigma):.1f} sigma")
    if attempt.n:
        facts.append(f"{attempt.n} seed" + "s" * (attempt.n > 1))
    if attempt.proposer:
        facts.append(f"by {attempt.usage.model or attempt.proposer}")
    if attempt.commit:
        facts.append(f"commit {attempt.commit[:10]}")
    shown = f" ({'; '.join(facts)})" if facts else ""
    reason = f": {attempt.reason}" if attempt.reason else ""
    return clean(f"{attempt.verdict or attempt.state}{score}{shown} {attempt.title}{reason}")


# ---------------------------------------------------------------------- the file


def render(
    attempts: Sequence[Attempt],
    metric: Metric,
    facts: Mapping[str, str],
    *,
    champions: Sequence[Champion] = (),
    first_session: int = 0,
) -> Iterator[bytes]:
    """Yield the report of a whole campaign in parts, since 10,000 attempts take 40 MB.

    Keeps and baselines pass; other verdicts are skipped as expected failures. What did not finish
    is an error, but skipped if an earlier session left it so: that session's log has the error.

    Args:
        attempts: Every attempt of the campaign, oldest first.
        metric: Of the experiment.
        facts: Properties of the suite.
        champions: All champions of the campaign, for the mean that an attempt was compared with.
        first_session: Ledger row of this run's first session; attempts before it are marked.
    """
    names = {attempt.id: attempt.name for attempt in attempts}
    means = {champion.attempt_id: champion.mean for champion in champions}
    tags = Counter(_tag(attempt, attempt.session_id < first_session) for attempt in attempts)
    started = min((attempt.started for attempt in attempts), default=0.0)
    suite = ElementTree.Element(
        "testsuite",
        name="autoresearch",
        errors=str(tags["error"]),
        failures=str(tags["failure"]),
        skipped=str(tags["skipped"]),
        tests=str(len(attempts)),
        time=f"{sum(map(_seconds, attempts)):.3f}",
        timestamp=datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname=facts.get("hostname", platform.node() or "localhost"),
    )
    holder = ElementTree.SubElement(suite, "properties")
    for key, value in {**versions(), **facts, **totals(attempts)}.items():
        ElementTree.SubElement(holder, "property", name=key, value=clean(value))
    ElementTree.SubElement(suite, "cases")
    root = ElementTree.Element("testsuites", name="pytest tests")
    root.append(suite)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    head, _, tail = text.rpartition(b"<cases />")
    yield head
    for attempt in attempts:
        shown = properties(attempt, metric, names)
        for name, row in (("before", attempt.champion_before), ("after", attempt.champion_after)):
            if row in means:
                shown.append((f"champion_{name}_mean", repr(means[row])))
        if earlier := attempt.session_id < first_session:
            shown.append(("earlier_session", "true"))
        yield ElementTree.tostring(_case(attempt, metric, shown, earlier))
    yield tail


def totals(attempts: Sequence[Attempt]) -> dict[str, str]:
    """Return the sums over a campaign's attempts."""
    tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
    verdicts = Counter(attempt.verdict or attempt.state for attempt in tried)
    runs = [run for attempt in attempts for run in attempt.runs]
    usages = [attempt.usage for attempt in attempts]
    tokens = sum(usage.tokens_in + usage.output_tokens for usage in usages)
    return {
        "total_attempts": str(len(tried)),
        **{f"total_{verdict}": str(count) for verdict, count in sorted(verdicts.items())},
        "total_runs": str(len(runs)),
        "total_run_hours": f"{sum(run.total_seconds for run in runs) / 3600:.4f}",
        "total_tokens": str(tokens),
        "total_dollars": f"{sum(usage.cost_usd or 0.0 for usage in usages):.4f}",
        "devices": ", ".join(sorted({run.device for run in runs if run.device})),
    }


def versions() -> dict[str, str]:
    """Return the versions of this process; each run's own are hashed with its score."""
    found = {"python": platform.python_version(), "platform": platform.platform()}
    for package in ("pytest_autoresearch", "pytest", "torch", "numpy"):
        with contextlib.suppress(metadata.PackageNotFoundError):
            found[package] = metadata.version(package)
    return found


def _tag(attempt: Attempt, earlier: bool) -> str:
    """Return the element that a case's outcome has; '' if it passed."""
    if attempt.verdict is None:
        return "skipped" if earlier else "error"
    if attempt.verdict in ("keep", "baseline"):
        return ""
    return "failure" if attempt.kind == "baseline" else "skipped"


def _seconds(attempt: Attempt) -> float:
    return max(0.0, (attempt.finished or attempt.started) - attempt.started)


def _case(
    attempt: Attempt, metric: Metric, shown: Sequence[tuple[str, str]], earlier: bool
) -> ElementTree.Element:
    case = ElementTree.Element(
        "testcase", classname="program.md", name=attempt.name, time=f"{_seconds(attempt):.3f}"
    )
    holder = ElementTree.SubElement(case, "properties")
    for key, value in shown:
        ElementTree.SubElement(holder, "property", name=key, value=value)
    message = headline(attempt, metric)
    if tag := _tag(attempt, earlier):
        result = ElementTree.SubElement(case, tag, message=message)
        if attempt.verdict is None:
            detail = attempt.reason or "in flight"
            result.set("message", clean(f"{attempt.state}: {detail}"))
        if tag == "skipped":
            result.set("type", "pytest.skip" if attempt.verdict is None else "pytest.xfail")
    before = f"from session {attempt.session_id}, before this one\n" if earlier else ""
    output = clean(before + "\n\n".join(_output(attempt, message)))
    ElementTree.SubElement(case, "system-out").text = output
    return case


def _output(attempt: Attempt, message: str) -> Iterator[str]:
    yield message
    if attempt.hypothesis:
        yield attempt.hypothesis
    if attempt.edits:
        yield format_blocks(attempt.edits)
    if attempt.runs and attempt.runs[-1].log_tail:
        yield "--- log tail ---\n" + attempt.runs[-1].log_tail[-LOG_CHARACTERS:]


def write(
    path: Path,
    attempts: Sequence[Attempt],
    metric: Metric,
    facts: Mapping[str, str],
    *,
    champions: Sequence[Champion] = (),
    first_session: int = 0,
) -> None:
    """Write the report in one step; see `render`.

    Raises:
        OSError: It cannot be written; the ledger still holds everything.
    """
    parts = render(attempts, metric, facts, champions=champions, first_session=first_session)
    write_atomic(path, parts)


def facts_of(
    ledger: Ledger, attempts: Sequence[Attempt], champions: Sequence[Champion]
) -> dict[str, str]:
    """Return the campaign's facts and its champion's figures as properties of the suite."""
    tag, campaign = ledger.path.parent.name, ledger.meta("campaign") or {}
    asked = [(session.config or {}).get("judge") for session in ledger.sessions()]
    judges = [judge for judge in asked if judge]
    facts = {
        "campaign": tag,
        "branch": f"autoresearch/{tag}",
        "judge": str(judges[-1]) if judges else "",
        "data_sha256": str(ledger.meta("data_sha256") or ""),
        **{name: str(campaign.get(name, "")) for name in ("budget", "base_commit", "seed")},
    }
    if not champions:
        return facts
    first, last = champions[0], champions[-1]
    names = {attempt.id: attempt.name for attempt in attempts}
    return facts | {
        "baseline_mean": repr(first.mean),
        "champion": names.get(last.attempt_id, str(last.attempt_id)),
        "champion_commit": last.commit,
        "champion_mean": repr(last.mean),
        "champion_gain": repr(kept_gain(attempts, champions)),
        "keeps": str(len(champions) - 1),
        **_confirmed(ledger.confirmation(), last),
    }


def _confirmed(confirmation: Confirmation | None, last: Champion) -> dict[str, str]:
    """Return the last champion's gains on fresh seeds and on the holdout, with their intervals."""
    if confirmation is None or confirmation.champion != last.version:
        return {}
    gains = {"confirmed": confirmation.confirmed, "holdout": confirmation.holdout}
    facts = {f"{name}_gain": str(gain) for name, gain in gains.items() if gain is not None}
    if confirmation.confirmed:
        facts["standing"] = confirmation.confirmed.standing
    return facts
