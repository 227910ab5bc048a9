"""The junit report as the experiment log, written from the ledger.

pytest's own writer loses everything on SIGKILL, so the file named by ``--junitxml`` is rewritten
after each slot, and once more after pytest has written its own.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ElementTree
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path

from .. import atomic
from ..experiment import Metric
from ..records import SlotRecord

_ILLEGAL = re.compile(
    "[^\t\n\r\x20-\x7e\x85\xa0-\ud7ff\ue000-\ufdcf\ufdf0-\ufffd\U00010000-\U0010fffd]"
)


def clean(text: str) -> str:
    """Return `text` without what XML 1.0 cannot hold."""
    return _ILLEGAL.sub("\ufffd", text)


def properties(slot: SlotRecord, metric: Metric) -> list[tuple[str, str]]:
    """Return the figures of a slot as junit properties; absent ones are left out."""
    own = slot.own_trials
    last = own[-1] if own else None
    ok = [trial for trial in own if trial.status == "ok"]
    values: dict[str, object] = {
        "verdict": slot.verdict or slot.state,
        "reason": slot.reason,
        "title": slot.title,
        "hypothesis": slot.hypothesis,
        "proposer": slot.proposer,
        "metric": metric.name,
        metric.name: slot.score,
        "bar": slot.bar,
        "gain": slot.gain,
        "gain_sigma": slot.gain_sigma,
        "replicates": slot.n or None,
        "seeds": " ".join(str(trial.seed) for trial in ok),
        "commit": slot.commit,
        "parent": slot.parent,
        "champion_before": slot.champion_before,
        "champion_after": slot.champion_after,
        "lines_added": slot.lines_added,
        "lines_removed": slot.lines_removed,
        "gates": " ".join(f"{g.name}={'ok' if g.ok else 'no'}" for g in slot.gates),
        "ledger_row": slot.id,
    }
    if last is not None:
        values |= {
            "training_seconds": last.train_seconds,
            "total_seconds": sum(trial.total_seconds for trial in slot.trials),
            "cpu_seconds": last.cpu_seconds,
            "work": last.work,
            "steps": last.steps,
            "parameters": last.parameters,
            "peak_memory_mb": last.peak_memory_bytes / 2**20,
            "score_kind": last.score_kind,
            "score_se": last.score_se,
            "budget": last.budget,
            "device": last.device,
            "sandbox": " ".join(f"{k}={v.split(':')[0]}" for k, v in last.sandbox.items()),
            **{f"hash_{name}": value for name, value in last.hashes.items()},
        }
    return [(key, _show(value)) for key, value in values.items() if value not in (None, "")]


def _show(value: object) -> str:
    return clean(repr(value) if isinstance(value, float) else str(value))


def headline(slot: SlotRecord) -> str:
    """Return the key facts in one line, for viewers that do not show properties."""
    score = "" if slot.score is None else f" {slot.score:.6f}"
    sigma = "" if slot.gain_sigma is None else f" ({slot.gain_sigma:+.1f} sigma)"
    reason = f": {slot.reason}" if slot.reason else ""
    return clean(f"{slot.verdict or slot.state}{score}{sigma} {slot.title}{reason}".strip())


def render(slots: Sequence[SlotRecord], metric: Metric, facts: Mapping[str, str]) -> bytes:
    """Return the report of a whole campaign.

    Kept slots and baselines pass; what was not kept is skipped as an expected failure; slots in
    flight or cut off are errors.
    """
    cases = [(slot, _case(slot, metric)) for slot in slots]
    started = min((slot.started for slot in slots), default=0.0)
    suite = ElementTree.Element(
        "testsuite",
        name="autoresearch",
        errors=str(sum(case.find("error") is not None for _, case in cases)),
        failures=str(sum(case.find("failure") is not None for _, case in cases)),
        skipped=str(sum(case.find("skipped") is not None for _, case in cases)),
        tests=str(len(cases)),
        time=f"{sum(float(case.get('time', 0)) for _, case in cases):.3f}",
        timestamp=datetime.fromtimestamp(started, UTC).strftime("%Y-%m-%dT%H:%M:%S"),
        hostname=facts.get("hostname", "localhost"),
    )
    holder = ElementTree.SubElement(suite, "properties")
    for key, value in facts.items():
        ElementTree.SubElement(holder, "property", name=key, value=clean(value))
    suite.extend(case for _, case in cases)
    root = ElementTree.Element("testsuites", name="pytest tests")
    root.append(suite)
    text: bytes = ElementTree.tostring(root, encoding="utf-8", xml_declaration=True)
    return text


def _case(slot: SlotRecord, metric: Metric) -> ElementTree.Element:
    seconds = (slot.finished or slot.started) - slot.started
    case = ElementTree.Element(
        "testcase", classname="program.md", name=slot.name, time=f"{seconds:.3f}"
    )
    holder = ElementTree.SubElement(case, "properties")
    for key, value in properties(slot, metric):
        ElementTree.SubElement(holder, "property", name=key, value=value)
    message = headline(slot)
    if slot.verdict is None:
        detail = slot.reason or ("in flight" if slot.state == "running" else slot.state)
        ElementTree.SubElement(case, "error", message=clean(f"{slot.state}: {detail}"))
    elif slot.verdict not in ("keep", "baseline"):
        if slot.kind == "baseline":
            ElementTree.SubElement(case, "failure", message=message)
        else:
            ElementTree.SubElement(case, "skipped", type="pytest.xfail", message=message)
    output = _output(slot)
    if output:
        ElementTree.SubElement(case, "system-out").text = clean(output)
    return case


def _output(slot: SlotRecord) -> str:
    from ..proposers.edits import format_blocks

    parts = [headline(slot)]
    if slot.edits:
        parts.append(format_blocks(slot.edits))
    if slot.trials and slot.trials[-1].log_tail:
        parts.append("--- log tail ---\n" + slot.trials[-1].log_tail[-8000:])
    return "\n\n".join(parts)


def write(
    path: Path, slots: Sequence[SlotRecord], metric: Metric, facts: Mapping[str, str]
) -> None:
    """Write the report in one step.

    Raises:
        OSError: It cannot be written; the ledger still holds everything.
    """
    atomic.write(path, render(slots, metric, facts))
