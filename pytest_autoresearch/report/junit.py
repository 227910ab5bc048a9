"""The junit report as the experiment log, written from the ledger and readable back into one.

pytest's own writer loses everything on SIGKILL, so the file named by ``--junitxml`` is rewritten
after each attempt, and once more after pytest has written its own. Figures stand in properties, the
key ones in messages too, since several viewers show no properties; the edits and the log's tail in
``system-out``. What a further campaign needs is in one line of ASCII JSON an attempt, the last of its
``system-out``: whatever a candidate printed, it is not the last line.
"""

from __future__ import annotations

import json
import platform
import re
import xml.etree.ElementTree as ElementTree
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING

from ..core.experiment import Metric
from ..core.files import write_atomic
from ..core.records import Attempt, Champion
from ..ledger import snapshot
from ..ledger.snapshot import Snapshot, SnapshotError

if TYPE_CHECKING:
    from ..ledger.store import Ledger

RECORD = "autoresearch-record: "
"""Begins the last line of a testcase's ``system-out``: the attempt's rows as JSON."""

CAMPAIGN = "autoresearch-campaign"
"""Property of the suite that holds what belongs to the campaign as a whole, as JSON."""

LOG_CHARACTERS = 8_000

_ILLEGAL = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]"
)


def clean(text: str) -> str:
    """Return `text` without what XML 1.0 cannot hold."""
    return _ILLEGAL.sub("\ufffd", text)


# ---------------------------------------------------------------------- an attempt's figures


def properties(
    attempt: Attempt, metric: Metric, names: Mapping[int, str] | None = None
) -> list[tuple[str, str]]:
    """Return the figures of an attempt as junit properties; absent ones are left out.

    Args:
        attempt: The attempt.
        metric: Of the experiment.
        names: Ledger row to attempt name, for parents and champions; their rows are shown otherwise.
    """
    names = names or {}
    values: dict[str, object] = {
        "verdict": attempt.verdict or attempt.state,
        "reason": attempt.reason,
        "title": attempt.title,
        "hypothesis": attempt.hypothesis,
        "metric": metric.name,
        "score": attempt.score,
        "bar": attempt.bar,
        "gain": attempt.gain,
        "gain_sigma": attempt.gain_sigma,
        "replicates": attempt.n or None,
        "commit": attempt.commit,
        "parent": _name(attempt.parent, names),
        "champion_before": _name(attempt.champion_before, names),
        "champion_after": _name(attempt.champion_after, names),
        "lines_added": attempt.lines_added,
        "lines_removed": attempt.lines_removed,
        "check_notes": " ".join(
            f"{g.name.replace(' ', '-')}={_yes(g.ok)}" for g in attempt.check_notes
        ),
        "refused_by": "; ".join(f"{g.name}: {g.detail}" for g in attempt.check_notes if not g.ok),
        "gate_seconds": sum(g.seconds for g in attempt.check_notes) or None,
        "ledger_row": attempt.id,
        "worker": attempt.worker,
        "session": attempt.session_id,
        **_proposal(attempt),
        **_runs(attempt),
    }
    values.setdefault(
        metric.name, attempt.score
    )  # a metric may be called as one of ours, e.g. steps
    return [(clean(key), _show(value)) for key, value in values.items() if value not in (None, "")]


def _name(row: int | None, names: Mapping[int, str]) -> str:
    return "" if row is None else names.get(row, str(row))


def _yes(ok: bool) -> str:
    return "ok" if ok else "no"


def _proposal(attempt: Attempt) -> dict[str, object]:
    usage = attempt.usage
    tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "proposer": attempt.proposer,
        "brief": attempt.meta.get("brief"),
        "model": usage.model,
        "tokens": tokens + usage.output_tokens or None,
        "input_tokens": usage.input_tokens or None,
        "cache_read_tokens": usage.cache_read_tokens or None,
        "cache_write_tokens": usage.cache_write_tokens or None,
        "output_tokens": usage.output_tokens or None,
        "requests": usage.requests or None,
        "dollars": usage.cost_usd,
        "proposer_seconds": usage.seconds or None,
    }


def _runs(attempt: Attempt) -> dict[str, object]:
    own = attempt.own_runs
    if not own:
        return {}
    last = own[-1]
    ok = [run for run in own if run.status == "ok"]
    return {
        "seeds": " ".join(str(run.seed) for run in ok),
        "scores": " ".join(f"{run.seed}={run.score!r}" for run in ok),
        "training_seconds": last.train_seconds,
        "total_seconds": sum(run.total_seconds for run in attempt.runs),
        "cpu_seconds": last.cpu_seconds,
        "work": last.work,
        "steps": last.steps,
        "parameters": last.parameters,
        "peak_memory_mb": max(t.peak_memory_bytes for t in own) / 2**20,
        "mfu_percent": last.metrics.get("mfu_percent"),
        "score_kind": last.score_kind,
        "score_se": last.score_se,
        "budget": last.budget,
        "device": last.device,
        "concurrency": last.concurrency,
        "sandbox": " ".join(f"{k}={v.split(':')[0]}" for k, v in last.sandbox.items()),
        **{f"hash_{name}": value for name, value in last.hashes.items()},
    }


def _show(value: object) -> str:
    return clean(repr(value) if isinstance(value, float) else str(value))


def headline(attempt: Attempt, metric: Metric | None = None) -> str:
    """Return the key facts in one line, for viewers that do not show properties."""
    score = "" if attempt.score is None else f" {attempt.score:.6f}"
    facts = []
    if metric is not None and attempt.score is not None:
        score = f" {metric.name}{score}"
    if attempt.gain is not None and attempt.gain_sigma is not None:
        facts.append(f"gain {attempt.gain:+.6f}, {attempt.gain_sigma:+.1f} sigma")
    if attempt.n:
        facts.append(f"{attempt.n} seed" + "s" * (attempt.n > 1))
    if attempt.proposer:
        facts.append(f"by {attempt.usage.model or attempt.proposer}")
    if attempt.commit:
        facts.append(f"commit {attempt.commit[:10]}")
    shown = f" ({'; '.join(facts)})" if facts else ""
    reason = f": {attempt.reason}" if attempt.reason else ""
    return clean(
        f"{attempt.verdict or attempt.state}{score}{shown} {attempt.title}{reason}".strip()
    )


# ---------------------------------------------------------------------- the file


def render(
    attempts: Sequence[Attempt],
    metric: Metric,
    facts: Mapping[str, str],
    *,
    known: Snapshot | None = None,
    first_session: int = 0,
) -> bytes:
    """Return the report of a whole campaign.

    Kept attempts and baselines pass; what was not kept is skipped as an expected failure; attempts in
    flight or cut off are errors.

    Args:
        attempts: Every attempt of the campaign, oldest first.
        metric: Of the experiment.
        facts: Properties of the suite.
        known: The ledger's rows; without them the file cannot be read back.
        first_session: Ledger row of this run's first session; attempts before it are marked.
    """
    names = {attempt.id: attempt.name for attempt in attempts}
    rows = {} if known is None else {entry.attempt["id"]: entry for entry in known.attempts}
    means = {} if known is None else {c["attempt_id"]: _mean(c["scores"]) for c in known.champions}
    cases = []
    for attempt in attempts:
        figures = properties(attempt, metric, names)
        for name, row in (("before", attempt.champion_before), ("after", attempt.champion_after)):
            if row in means:
                figures.append((f"champion_{name}_mean", repr(means[row])))
        if earlier := attempt.session_id < first_session:
            figures.append(("earlier_session", "true"))
        record = (
            snapshot.line(snapshot.attempt_data(rows[attempt.id])) if attempt.id in rows else ""
        )
        cases.append(_case(attempt, metric, figures, earlier, record))
    started = min((attempt.started for attempt in attempts), default=0.0)
    suite = ElementTree.Element(
        "testsuite",
        name="autoresearch",
        errors=str(sum(case.find("error") is not None for case in cases)),
        failures=str(sum(case.find("failure") is not None for case in cases)),
        skipped=str(sum(case.find("skipped") is not None for case in cases)),
        tests=str(len(cases)),
        time=f"{sum(float(case.get('time', 0)) for case in cases):.3f}",
        timestamp=datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname=facts.get("hostname", platform.node() or "localhost"),
    )
    holder = ElementTree.SubElement(suite, "properties")
    for key, value in {**_versions(), **facts, **totals(attempts)}.items():
        ElementTree.SubElement(holder, "property", name=key, value=clean(value))
    if known is not None:
        data = snapshot.line(snapshot.campaign_data(known))
        ElementTree.SubElement(holder, "property", name=CAMPAIGN, value=data)
    suite.extend(cases)
    root = ElementTree.Element("testsuites", name="pytest tests")
    root.append(suite)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def totals(attempts: Sequence[Attempt]) -> dict[str, str]:
    """Return what the attempts of a campaign come to together."""
    tried = [attempt for attempt in attempts if attempt.kind != "baseline"]
    verdicts = Counter(attempt.verdict or attempt.state for attempt in tried)
    runs = [run for attempt in attempts for run in attempt.runs]
    usages = [attempt.usage for attempt in attempts]
    prices = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    tokens = sum(
        u.input_tokens + u.cache_read_tokens + u.cache_write_tokens + u.output_tokens
        for u in usages
    )
    return {
        "total_attempts": str(len(tried)),
        **{f"total_{verdict}": str(count) for verdict, count in sorted(verdicts.items())},
        "total_trials": str(len(runs)),
        "total_trial_hours": f"{sum(t.total_seconds for t in runs) / 3600:.4f}",
        "total_tokens": str(tokens),
        "total_dollars": f"{sum(prices):.4f}",
        "devices": ", ".join(sorted({run.device for run in runs if run.device})),
    }


def _versions() -> dict[str, str]:
    from .. import __version__

    found = {"python": platform.python_version(), "platform": platform.platform()}
    found["pytest_autoresearch"] = __version__
    for package in ("pytest", "torch", "numpy"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    return found


def _mean(scores: Mapping[str, float]) -> float:
    return sum(scores.values()) / len(scores)


def _case(
    attempt: Attempt,
    metric: Metric,
    figures: Sequence[tuple[str, str]],
    earlier: bool,
    record: str,
) -> ElementTree.Element:
    seconds = (attempt.finished or attempt.started) - attempt.started
    case = ElementTree.Element(
        "testcase", classname="program.md", name=attempt.name, time=f"{max(0.0, seconds):.3f}"
    )
    holder = ElementTree.SubElement(case, "properties")
    for key, value in figures:
        ElementTree.SubElement(holder, "property", name=key, value=value)
    message = headline(attempt, metric)
    if attempt.verdict is None:
        detail = attempt.reason or ("in flight" if attempt.state == "running" else attempt.state)
        ElementTree.SubElement(case, "error", message=clean(f"{attempt.state}: {detail}"))
    elif attempt.verdict not in ("keep", "baseline"):
        if attempt.kind == "baseline":
            ElementTree.SubElement(case, "failure", message=message)
        else:
            ElementTree.SubElement(case, "skipped", type="pytest.xfail", message=message)
    before = f"from session {attempt.session_id}, before this one\n" if earlier else ""
    output = clean(before + "\n\n".join(_output(attempt, message)))
    ElementTree.SubElement(case, "system-out").text = (
        f"{output}\n\n{RECORD}{record}\n" if record else output
    )
    return case


def _output(attempt: Attempt, message: str) -> Iterator[str]:
    from ..source.blocks import format_blocks

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
    known: Snapshot | None = None,
    first_session: int = 0,
) -> None:
    """Write the report in one step; see `render`.

    Raises:
        OSError: It cannot be written; the ledger still holds everything.
    """
    write_atomic(path, render(attempts, metric, facts, known=known, first_session=first_session))


def facts_of(
    ledger: Ledger, attempts: Sequence[Attempt], champions: Sequence[Champion], metric: Metric
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
        "champion_gain": repr(metric.gain(last.mean, first.mean)),
        "keeps": str(len(champions) - 1),
    }


# ---------------------------------------------------------------------- reading it back


def read(path: Path) -> Snapshot:
    """Return the campaign that a file of `write` holds.

    Raises:
        SnapshotError: It cannot be read, is not whole, or holds no campaign.
    """
    try:
        root = ElementTree.parse(path).getroot()
    except OSError as error:
        raise SnapshotError(f"{path}: {error.strerror}; name a junit log") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise SnapshotError(f"{path} is no whole XML file ({error})") from None
    campaigns = [
        found.get("value", "") for found in root.iter("property") if found.get("name") == CAMPAIGN
    ]
    if len(campaigns) != 1:
        raise SnapshotError(
            f"{path} holds {len(campaigns)} campaigns where one is wanted; only a log that "
            "pytest --autoresearch wrote can be imported"
        )
    try:
        campaign = json.loads(campaigns[0])
        attempts = [json.loads(_record(case)) for case in root.iter("testcase")]
    except ValueError as error:
        raise SnapshotError(f"{path} has a damaged record ({error})") from None
    return snapshot.read(campaign, attempts)


def _record(case: ElementTree.Element) -> str:
    text = (case.findtext("system-out") or "").rstrip("\n")
    last = text.rpartition("\n")[2]
    if not last.startswith(RECORD):
        raise SnapshotError(f"{case.get('name')} has no record on its last line of output")
    return last.removeprefix(RECORD)
