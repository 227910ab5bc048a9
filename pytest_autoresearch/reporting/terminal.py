"""What a person sees while it runs: one live line per worker, one line a slot, summaries."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from .. import atomic
from ..judge import Judge, preview, show

if TYPE_CHECKING:
    from ..session import Session
    from ..trial import Progress

REPAINT_S = 0.5
PLAIN_S = 30.0
STALE_S = 10.0
EVERY = 10
_last_written: dict[str, float] = {}


def write_status(
    folder: Path, worker: str, name: str, title: str, purpose: str, progress: Progress
) -> None:
    """Leave word of a running trial for the driver; at most twice a second."""
    now = time.monotonic()
    if now - _last_written.get(worker, 0.0) < REPAINT_S / 2 and progress.fraction < 1:
        return
    _last_written[worker] = now
    status = {
        "worker": worker,
        "slot": name,
        "title": title,
        "purpose": purpose,
        "phase": progress.phase,
        "fraction": progress.fraction,
        "elapsed": progress.elapsed_s,
        "loss": progress.loss,
        "at": time.time(),
    }
    with contextlib.suppress(OSError):
        path = folder / "status" / f"{worker}.json"
        path.parent.mkdir(parents=True, exist_ok=True)
        atomic.write(path, json.dumps(status))


def read_status(folder: Path) -> list[dict[str, Any]]:
    """Return what the workers last said, stale words left out."""
    found = []
    for path in sorted((folder / "status").glob("*.json")):
        with contextlib.suppress(OSError, ValueError):
            status = json.loads(path.read_text())
            if time.time() - status["at"] < STALE_S:
                found.append(status)
    return found


def status_line(status: dict[str, Any]) -> str:
    """Return one worker's trial as text."""
    loss = "" if status["loss"] is None else f" loss {status['loss']:.3f}"
    purpose = {"replicate": " again", "champion": " champion again"}.get(status["purpose"], "")
    return (
        f"{status['slot']}{purpose} {status['phase']} {status['fraction']:4.0%} "
        f"{status['elapsed']:.0f}s{loss} | {status['title']}"
    )


class LiveView:
    """Repaints a line on a terminal; prints a plain one now and then elsewhere."""

    def __init__(self, session: Session) -> None:
        self.session = session
        self.reporter: Any = session.config.pluginmanager.getplugin("terminalreporter")
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._painted = False
        self._thread: threading.Thread | None = None
        self._finished = 0

    def start(self) -> None:
        """Begin to repaint; silent with ``-q`` and without a terminal reporter."""
        if not self.speaks:
            return
        self.reporter.showfspath = False
        self._thread = threading.Thread(target=self._loop, name="autoresearch-live", daemon=True)
        self._thread.start()

    @property
    def speaks(self) -> bool:
        """Whether slots get lines of their own."""
        return self.reporter is not None and self.session.config.option.verbose >= 0

    def stop(self) -> None:
        """Stop repainting and leave a clean line."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(timeout=5)
        with self._lock:
            self._clear()

    def say(self, line: str) -> None:
        """Print a line of its own, without tearing the live one."""
        if self.speaks:
            with self._lock:
                self._clear()
                self.reporter.ensure_newline()
                self.reporter.write_line(line)

    def _loop(self) -> None:
        tty = self._tty
        while not self._stop.wait(REPAINT_S if tty else PLAIN_S):
            rows = read_status(self.session.folder)
            if not rows:
                continue
            with self._lock:
                if tty:
                    width = self.reporter._tw.fullwidth - 1
                    line = " || ".join(status_line(row) for row in rows)[:width]
                    self._write("\r\x1b[2K" + line)
                    self._painted = True
                else:
                    self._write("".join(f"  … {status_line(row)}\n" for row in rows))

    @property
    def _tty(self) -> bool:
        return bool(getattr(self.reporter, "isatty", False)) and bool(self.reporter._tw.hasmarkup)

    def _write(self, text: str) -> None:
        self.reporter._tw._file.write(text)
        self.reporter._tw._file.flush()

    def _clear(self) -> None:
        if self._painted:
            self._write("\r\x1b[2K")
            self._painted = False

    def finished(self, report: pytest.TestReport) -> None:
        """Print a slot's line, and a progress block every tenth slot."""
        if not self.speaks:
            return
        facts = dict(report.user_properties)
        with self._lock:
            self._clear()
            self.reporter.ensure_newline()
            self.reporter.write_line(result_line(report.nodeid.split("::")[-1], facts))
            if "mutation" in report.nodeid:
                self._finished += 1
                if self._finished % EVERY == 0:
                    for line in summary(self.session):
                        self.reporter.write_line("  " + line)


def result_line(name: str, facts: dict[str, Any]) -> str:
    """Return ``K 0.971234 (-0.001204, 3.1σ) mutation-0007 halve batch size``."""
    from ..outcome import LETTERS

    verdict = facts.get("verdict", "")
    letter = LETTERS[verdict][1] if verdict in LETTERS else "?"
    score = facts.get(facts.get("metric", ""))
    shown = f"{float(score):.6f}" if score else "-" * 8
    delta = ""
    if facts.get("gain") and facts.get("gain_sigma"):
        delta = f" (gain {float(facts['gain']):+.6f}, {float(facts['gain_sigma']):+.1f}σ)"
    size = ""
    if verdict not in ("baseline", ""):
        size = f" +{facts.get('lines_added', 0)}/-{facts.get('lines_removed', 0)}"
    why = ""
    if not score and facts.get("reason"):
        why = f": {facts['reason'].splitlines()[0][:100]}"
    return f"{letter} {shown}{delta} {name} {facts.get('title', '')}{size}{why}"


def header(session: Session) -> list[str]:
    """What is in force, and why."""
    from ..devices import cpu_name, visible_gpus

    plan, options = session.plan, session.options
    why = {
        "equal": "as long as the baseline needs for so many tokens here, counted in CPU work",
        "work": "units of training data",
    }.get(plan.budget.split(":")[0] if ":" in plan.budget else "", "")
    gpus = visible_gpus()
    device = f"{len(gpus)} GPU(s)" if gpus else cpu_name()
    state = "new" if plan.first == 1 and plan.baselines else f"resumed at slot {plan.first}"
    contract = session.experiment.run is None
    lines = [
        f"autoresearch: campaign {plan.tag} ({state}), branch autoresearch/{plan.tag}",
        f"proposer: {session.proposer}; judge: {options.judge}; budget: {plan.budget}"
        + (f" ({why})" if why else "")
        + f"; device: {device}",
    ]
    if contract:
        from ..sandbox import Report, survey

        if options.sandbox == "off":
            lines.append("sandbox: off; score: unverified")
        else:
            report: Report = survey()
            score = "trusted" if report.verified else "unverified"
            lines.append(f"sandbox: {report.headline()}; score: {score}")
    else:
        lines.append("score: self-reported by the command")
    if contract or not plan.baselines:
        from ..noise import noise_of

        judge = Judge(options.judge, session.experiment.metric.direction)
        noise = noise_of(session.ledger, session.experiment)
        lines.append(preview(noise, plan.metric, judge, options.iterations))
    return lines


def closing_lines(facts: dict[str, Any] | None, version: int, metric: str) -> list[str]:
    """Return what is confirmed of the champion of `version`, or that nothing is yet."""
    from ..closing import lines

    if not facts or facts["champion"] != version:
        return ["not confirmed on fresh seeds yet:  python -m pytest_autoresearch verify"]
    return list(lines(facts, metric))


def summary(session: Session) -> list[str]:
    """Where the campaign stands, and what to do with the winner."""
    from ..closing import kept_gain
    from ..noise import noise_of

    ledger = session.ledger
    champions = ledger.champions()
    slots = [slot for slot in ledger.slots() if slot.kind != "baseline"]
    verdicts: dict[str, int] = {}
    for slot in slots:
        key = slot.verdict or slot.state
        verdicts[key] = verdicts.get(key, 0) + 1
    tally = ", ".join(f"{count} {name}" for name, count in sorted(verdicts.items()))
    lines = [f"campaign {session.plan.tag}: {len(slots)} slots" + (f" ({tally})" if tally else "")]
    if not champions:
        return [*lines, "the baseline is not measured yet"]
    metric, first, last = session.experiment.metric, champions[0], champions[-1]
    lines.append(f"baseline  {metric.name} {show(first.scores.values())}")
    lines.append(preview(noise_of(ledger, session.experiment), metric.name))
    if last.version > 1:
        kept = ledger.slot(last.slot_id)
        gain = kept_gain(ledger)
        lines.append(
            f"champion  {metric.name} {show(last.scores.values())}  gain {gain:+.6f}  "
            f"{kept.name} {kept.title}"
        )
        lines += closing_lines(ledger.meta("closing"), last.version, metric.name)
        lines.append(
            f"look:  git log -p {first.commit[:10]}..autoresearch/{session.plan.tag}"
            f"    take:  git merge autoresearch/{session.plan.tag}"
        )
    else:
        lines.append("no mutation was kept; the baseline stands")
    if any(slot.usage.requests for slot in slots):
        from ..spend import Purse, prices_version

        spent = Purse(ledger.path).spent()
        lines.append(f"spent on proposals: ${spent:.4f} (an estimate by {prices_version()})")
    lines.append(f"every attempt:  git for-each-ref refs/autoresearch/{session.plan.tag}")
    if session.options.html:
        lines.append(f"report:  {session.options.html}")
    if session.stopping:
        lines.append(f"stopped: {session.stopping}")
    return lines
