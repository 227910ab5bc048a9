"""The junit report as the experiment log, written from the ledger and readable back into one.

pytest's own writer loses everything on SIGKILL, so the file named by ``--junitxml`` is rewritten
after each slot, and once more after pytest has written its own. Figures stand in properties, the
key ones in messages too, since several viewers show no properties; the edits and the log's tail in
``system-out``. What a further campaign needs is in one line of ASCII JSON a slot, the last of its
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
from ..core.records import Champion, SlotRecord
from ..ledger import snapshot
from ..ledger.snapshot import Snapshot, SnapshotError

if TYPE_CHECKING:
    from ..ledger.store import Ledger

RECORD = "autoresearch-record: "
"""Begins the last line of a testcase's ``system-out``: the slot's rows as JSON."""

CAMPAIGN = "autoresearch-campaign"
"""Property of the suite that holds what belongs to the campaign as a whole, as JSON."""

LOG_CHARACTERS = 8_000

_ILLEGAL = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]"
)


def clean(text: str) -> str:
    """Return `text` without what XML 1.0 cannot hold."""
    return _ILLEGAL.sub("\ufffd", text)


# ---------------------------------------------------------------------- a slot's figures


def properties(
    slot: SlotRecord, metric: Metric, names: Mapping[int, str] | None = None
) -> list[tuple[str, str]]:
    """Return the figures of a slot as junit properties; absent ones are left out.

    Args:
        slot: The slot.
        metric: Of the experiment.
        names: Ledger row to slot name, for parents and champions; their rows are shown otherwise.
    """
    names = names or {}
    values: dict[str, object] = {
        "verdict": slot.verdict or slot.state,
        "reason": slot.reason,
        "title": slot.title,
        "hypothesis": slot.hypothesis,
        "metric": metric.name,
        "score": slot.score,
        "bar": slot.bar,
        "gain": slot.gain,
        "gain_sigma": slot.gain_sigma,
        "replicates": slot.n or None,
        "commit": slot.commit,
        "parent": _name(slot.parent, names),
        "champion_before": _name(slot.champion_before, names),
        "champion_after": _name(slot.champion_after, names),
        "lines_added": slot.lines_added,
        "lines_removed": slot.lines_removed,
        "gates": " ".join(f"{g.name.replace(' ', '-')}={_yes(g.ok)}" for g in slot.gates),
        "refused_by": "; ".join(f"{g.name}: {g.detail}" for g in slot.gates if not g.ok),
        "gate_seconds": sum(g.seconds for g in slot.gates) or None,
        "ledger_row": slot.id,
        "worker": slot.worker,
        "session": slot.session_id,
        **_proposal(slot),
        **_trials(slot),
    }
    values.setdefault(metric.name, slot.score)  # a metric may be called as one of ours, e.g. steps
    return [(clean(key), _show(value)) for key, value in values.items() if value not in (None, "")]


def _name(row: int | None, names: Mapping[int, str]) -> str:
    return "" if row is None else names.get(row, str(row))


def _yes(ok: bool) -> str:
    return "ok" if ok else "no"


def _proposal(slot: SlotRecord) -> dict[str, object]:
    usage = slot.usage
    tokens = usage.input_tokens + usage.cache_read_tokens + usage.cache_write_tokens
    return {
        "proposer": slot.proposer,
        "brief": slot.meta.get("brief"),
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


def _trials(slot: SlotRecord) -> dict[str, object]:
    own = slot.own_trials
    if not own:
        return {}
    last = own[-1]
    ok = [trial for trial in own if trial.status == "ok"]
    return {
        "seeds": " ".join(str(trial.seed) for trial in ok),
        "scores": " ".join(f"{trial.seed}={trial.score!r}" for trial in ok),
        "training_seconds": last.train_seconds,
        "total_seconds": sum(trial.total_seconds for trial in slot.trials),
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


def headline(slot: SlotRecord, metric: Metric | None = None) -> str:
    """Return the key facts in one line, for viewers that do not show properties."""
    score = "" if slot.score is None else f" {slot.score:.6f}"
    facts = []
    if metric is not None and slot.score is not None:
        score = f" {metric.name}{score}"
    if slot.gain is not None and slot.gain_sigma is not None:
        facts.append(f"gain {slot.gain:+.6f}, {slot.gain_sigma:+.1f} sigma")
    if slot.n:
        facts.append(f"{slot.n} seed" + "s" * (slot.n > 1))
    if slot.proposer:
        facts.append(f"by {slot.usage.model or slot.proposer}")
    if slot.commit:
        facts.append(f"commit {slot.commit[:10]}")
    shown = f" ({'; '.join(facts)})" if facts else ""
    reason = f": {slot.reason}" if slot.reason else ""
    return clean(f"{slot.verdict or slot.state}{score}{shown} {slot.title}{reason}".strip())


# ---------------------------------------------------------------------- the file


def render(
    slots: Sequence[SlotRecord],
    metric: Metric,
    facts: Mapping[str, str],
    *,
    known: Snapshot | None = None,
    first_session: int = 0,
) -> bytes:
    """Return the report of a whole campaign.

    Kept slots and baselines pass; what was not kept is skipped as an expected failure; slots in
    flight or cut off are errors.

    Args:
        slots: Every slot of the campaign, oldest first.
        metric: Of the experiment.
        facts: Properties of the suite.
        known: The ledger's rows; without them the file cannot be read back.
        first_session: Ledger row of this run's first session; slots before it are marked.
    """
    names = {slot.id: slot.name for slot in slots}
    rows = {} if known is None else {entry.slot["id"]: entry for entry in known.slots}
    means = {} if known is None else {c["slot_id"]: _mean(c["scores"]) for c in known.champions}
    cases = []
    for slot in slots:
        figures = properties(slot, metric, names)
        for name, row in (("before", slot.champion_before), ("after", slot.champion_after)):
            if row in means:
                figures.append((f"champion_{name}_mean", repr(means[row])))
        if earlier := slot.session_id < first_session:
            figures.append(("earlier_session", "true"))
        record = snapshot.line(snapshot.slot_data(rows[slot.id])) if slot.id in rows else ""
        cases.append(_case(slot, metric, figures, earlier, record))
    started = min((slot.started for slot in slots), default=0.0)
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
    for key, value in {**_versions(), **facts, **totals(slots)}.items():
        ElementTree.SubElement(holder, "property", name=key, value=clean(value))
    if known is not None:
        data = snapshot.line(snapshot.campaign_data(known))
        ElementTree.SubElement(holder, "property", name=CAMPAIGN, value=data)
    suite.extend(cases)
    root = ElementTree.Element("testsuites", name="pytest tests")
    root.append(suite)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def totals(slots: Sequence[SlotRecord]) -> dict[str, str]:
    """Return what the slots of a campaign come to together."""
    tried = [slot for slot in slots if slot.kind != "baseline"]
    verdicts = Counter(slot.verdict or slot.state for slot in tried)
    trials = [trial for slot in slots for trial in slot.trials]
    usages = [slot.usage for slot in slots]
    prices = [usage.cost_usd for usage in usages if usage.cost_usd is not None]
    tokens = sum(
        u.input_tokens + u.cache_read_tokens + u.cache_write_tokens + u.output_tokens
        for u in usages
    )
    return {
        "total_slots": str(len(tried)),
        **{f"total_{verdict}": str(count) for verdict, count in sorted(verdicts.items())},
        "total_trials": str(len(trials)),
        "total_trial_hours": f"{sum(t.total_seconds for t in trials) / 3600:.4f}",
        "total_tokens": str(tokens),
        "total_dollars": f"{sum(prices):.4f}",
        "devices": ", ".join(sorted({trial.device for trial in trials if trial.device})),
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
    slot: SlotRecord,
    metric: Metric,
    figures: Sequence[tuple[str, str]],
    earlier: bool,
    record: str,
) -> ElementTree.Element:
    seconds = (slot.finished or slot.started) - slot.started
    case = ElementTree.Element(
        "testcase", classname="program.md", name=slot.name, time=f"{max(0.0, seconds):.3f}"
    )
    holder = ElementTree.SubElement(case, "properties")
    for key, value in figures:
        ElementTree.SubElement(holder, "property", name=key, value=value)
    message = headline(slot, metric)
    if slot.verdict is None:
        detail = slot.reason or ("in flight" if slot.state == "running" else slot.state)
        ElementTree.SubElement(case, "error", message=clean(f"{slot.state}: {detail}"))
    elif slot.verdict not in ("keep", "baseline"):
        if slot.kind == "baseline":
            ElementTree.SubElement(case, "failure", message=message)
        else:
            ElementTree.SubElement(case, "skipped", type="pytest.xfail", message=message)
    before = f"from session {slot.session_id}, before this one\n" if earlier else ""
    output = clean(before + "\n\n".join(_output(slot, message)))
    ElementTree.SubElement(case, "system-out").text = (
        f"{output}\n\n{RECORD}{record}\n" if record else output
    )
    return case


def _output(slot: SlotRecord, message: str) -> Iterator[str]:
    from ..source.blocks import format_blocks

    yield message
    if slot.hypothesis:
        yield slot.hypothesis
    if slot.edits:
        yield format_blocks(slot.edits)
    if slot.trials and slot.trials[-1].log_tail:
        yield "--- log tail ---\n" + slot.trials[-1].log_tail[-LOG_CHARACTERS:]


def write(
    path: Path,
    slots: Sequence[SlotRecord],
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
    write_atomic(path, render(slots, metric, facts, known=known, first_session=first_session))


def facts_of(
    ledger: Ledger, slots: Sequence[SlotRecord], champions: Sequence[Champion], metric: Metric
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
    names = {slot.id: slot.name for slot in slots}
    return facts | {
        "baseline_mean": repr(first.mean),
        "champion": names.get(last.slot_id, str(last.slot_id)),
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
        slots = [json.loads(_record(case)) for case in root.iter("testcase")]
    except ValueError as error:
        raise SnapshotError(f"{path} has a damaged record ({error})") from None
    return snapshot.read(campaign, slots)


def _record(case: ElementTree.Element) -> str:
    text = (case.findtext("system-out") or "").rstrip("\n")
    last = text.rpartition("\n")[2]
    if not last.startswith(RECORD):
        raise SnapshotError(f"{case.get('name')} has no record on its last line of output")
    return last.removeprefix(RECORD)
